"""The last desired states on the replica's own disk, so that it starts without the broker. Blocking: call it from a thread."""

from __future__ import annotations

import os
from pathlib import Path

from backends.telemetry.logs import get_logger
from schemas import codec
from schemas.errors import InvalidMessageError
from schemas.messages.deployment import DeploymentState
from schemas.topics import MODEL_DEPLOYMENTS

log = get_logger("serving.desired_states")


class DesiredStateFiles:
    """One file a model in ``folder``, replaced in one move."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, state: DeploymentState) -> None:
        """Keep ``state``; it survives a crash at any moment."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{state.model_type}.new"
        with draft.open("wb") as file:
            file.write(codec.encode(state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / f"{state.model_type}.json")

    def load(self) -> list[DeploymentState]:
        """Return the states that were kept; one that cannot be read is left out and logged, the topic brings it again."""
        states = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                states.append(codec.decode(MODEL_DEPLOYMENTS, path.read_bytes()))
            except (InvalidMessageError, OSError) as error:
                log.warning("desired_state_unreadable", path=str(path), error=str(error))
        return states
