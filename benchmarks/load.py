"""The load generator of the HTTP comparisons: keep-alive connections on raw sockets, in one loop and one process.

``python -m benchmarks.load`` reads a :class:`Load` as JSON from standard input and writes an :class:`Outcome` as JSON to
standard output. It is a separate process, so that neither the benchmark's driver nor a framework delays a request. Both
sides of a comparison use it.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from benchmarks.ratios import percentile

LONGEST_SILENCE_SECONDS = 10.0
_CHUNK = 65_536
_ROOT = Path(__file__).resolve().parents[1]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The requests to send, and for how long.

    With ``rate`` (requests per second), requests are due at fixed times whatever the server does, and a latency counts
    from the time when its request was due (an open loop, free of coordinated omission). Without it, each connection
    sends its next request when it has its answer (a closed loop).
    """

    host: str
    port: int
    path: str
    body: bytes
    connections: int = 16
    warm_up_seconds: float = 1.0
    seconds: float = 5.0
    rate: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answers after the warm-up; ``failed`` counts those with another status than 200."""

    answered: int
    failed: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float


class SilentServerError(Exception):
    """The server closed a connection, or answered none for some seconds."""


def encoded_request(load: Load) -> bytes:
    """Return the request as bytes."""
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: {load.host}:{load.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(load.body)}\r\n\r\n"
    )
    return head.encode() + load.body


def complete_status(received: bytes | bytearray) -> int | None:
    """Return the status of the answer in ``received``, or None while it is incomplete.

    Raises:
        ValueError: the answer has no content length, so this client cannot find its end.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = bytes(received[:head_end]).lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if not found:
        raise ValueError(f"an answer without a content length: {head[:200]!r}")
    length = int(rest.split(b"\r\n", 1)[0])
    return int(head[9:12]) if len(received) >= head_end + 4 + length else None


class _Measurement:
    """Latencies and statuses of the answers after the warm-up."""

    def __init__(self, begins: float) -> None:
        self._begins = begins
        self._latencies: list[float] = []
        self._failed = 0
        self._last = begins

    def take(self, status: int, *, due: float, now: float) -> None:
        """Count one answer."""
        if now < self._begins:
            return
        self._latencies.append(now - due)
        self._failed += status != 200
        self._last = now

    def outcome(self) -> Outcome:
        """Return the measured outcome."""
        if not self._latencies:
            raise SilentServerError("no answer at all")
        seconds = self._last - self._begins
        return Outcome(
            answered=len(self._latencies),
            failed=self._failed,
            seconds=seconds,
            rate=len(self._latencies) / seconds,
            p50_ms=percentile(self._latencies, 0.5) * 1000,
            p99_ms=percentile(self._latencies, 0.99) * 1000,
        )


class _Generator:
    """The loop: sends due requests on idle connections and reads answers.

    It uses ``select``, which waits to the microsecond; ``epoll`` rounds up to the millisecond.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._request = encoded_request(load)
        self._sockets: dict[int, socket.socket] = {}
        self._received: dict[int, bytearray] = {}
        self._due: dict[int, float] = {}
        self._idle: deque[int] = deque()
        for _ in range(load.connections):
            self._connect()

    def run(self) -> Outcome:
        """Send until the time is over; requests still in flight are not counted."""
        started = time.perf_counter()
        ends = started + self._load.warm_up_seconds + self._load.seconds
        measurement = _Measurement(started + self._load.warm_up_seconds)
        next_due = started
        while (now := time.perf_counter()) < ends:
            next_due = self._send_due(now, next_due)
            self._take_answers(measurement, wait_seconds=self._wait_seconds(next_due))
        for connection in self._sockets.values():
            connection.close()
        return measurement.outcome()

    def _connect(self) -> None:
        connection = socket.create_connection((self._load.host, self._load.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = connection.fileno()
        self._sockets[number] = connection
        self._received[number] = bytearray()
        self._idle.append(number)

    def _send_due(self, now: float, next_due: float) -> float:
        """Send the due requests; return when the next one is due."""
        if self._load.rate is None:
            while self._idle:
                self._send(self._idle.popleft(), due=time.perf_counter())
            return next_due
        while self._idle and next_due <= now:
            self._send(self._idle.popleft(), due=next_due)
            next_due += 1 / self._load.rate
        return next_due

    def _wait_seconds(self, next_due: float) -> float:
        if self._load.rate is None or not self._idle:
            return LONGEST_SILENCE_SECONDS
        return max(next_due - time.perf_counter(), 0.0)

    def _send(self, number: int, *, due: float) -> None:
        self._due[number] = due
        self._sockets[number].sendall(self._request)

    def _take_answers(self, measurement: _Measurement, *, wait_seconds: float) -> None:
        ready, _, _ = select.select(list(self._sockets), [], [], wait_seconds)
        if not ready and wait_seconds >= LONGEST_SILENCE_SECONDS:
            raise SilentServerError(f"no answer for {wait_seconds:.0f} s")
        for number in ready:
            chunk = self._sockets[number].recv(_CHUNK)
            if not chunk:
                raise SilentServerError("the server closed a connection")
            received = self._received[number]
            received += chunk
            status = complete_status(received)
            if status is not None:
                measurement.take(status, due=self._due[number], now=time.perf_counter())
                received.clear()
                self._idle.append(number)


async def run_load(load: Load) -> Outcome:
    """Run the load in its own process and return the outcome.

    Raises:
        SilentServerError: the process failed; the message is its last line of errors.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    try:
        output, errors = await process.communicate(msgspec.json.encode(load))
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        raise SilentServerError(errors.decode(errors="replace").strip().rsplit("\n", 1)[-1])
    return msgspec.json.decode(output, type=Outcome)


def main() -> None:
    """Run the load from standard input."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.json.encode(_Generator(load).run()))


if __name__ == "__main__":
    main()
