"""A bounded cache of the encoded states of a partition's users, which saves reads from the database.

It holds bytes, not objects: they take a tenth of the memory, the garbage collector does not scan them, and a batch that
fails changes nothing, because it works on copies.
"""

from __future__ import annotations

from collections.abc import Iterable

ENTRY_BYTES = 200  # of a state beside its own bytes: key, object headers, and its share of the growing hash table


class StateCache:
    """States by user (16 bytes of the id), least recently changed first."""

    def __init__(self) -> None:
        self._states: dict[bytes, bytes] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def get(self, user: bytes) -> bytes | None:
        """Return the state of ``user`` if it is cached."""
        return self._states.get(user)

    def put(self, states: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember (user, state) pairs; the newest are kept longest."""
        for user, state in states:
            old = self._states.pop(user, None)
            self._states[user] = state
            self.bytes += len(state) - len(old) if old is not None else len(state) + ENTRY_BYTES

    def shrink(self, most_bytes: int) -> None:
        """Forget the least recently changed states until the others fit."""
        excess, leaving = self.bytes - most_bytes, []
        for user, state in self._states.items():
            if excess <= 0:
                break
            leaving.append(user)
            excess -= len(state) + ENTRY_BYTES
        for user in leaving:
            self.bytes -= len(self._states.pop(user)) + ENTRY_BYTES
