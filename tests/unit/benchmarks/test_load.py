"""The load generator, against a real socket server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from benchmarks.load import Load, SilentServerError, complete_status, encoded_request, run_load

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = b'{"a": 1}'


@contextlib.asynccontextmanager
async def answering(answer: Callable[[int], bytes]) -> AsyncIterator[int]:
    """Give the port of a server that gives ``answer`` to the number of the request, as soon as a request is complete; an empty one ends it."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(BODY)) == BODY
                requests += 1
                if not (chunk := answer(requests)):
                    break
                writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def load(port: int, *, rate: float | None = None) -> Load:
    """Return half a second of requests."""
    return Load(
        host="127.0.0.1", port=port, path="/p", body=BODY, connections=4, warm_up_seconds=0.1, seconds=0.4, rate=rate
    )


def test_an_answer_is_complete_with_its_last_byte() -> None:
    """The next request would go out on a connection whose answer is still coming."""
    assert [complete_status(ANSWER[:end]) for end in (0, 20, len(ANSWER) - 1)] == [None, None, None]
    assert complete_status(ANSWER) == 200


def test_an_answer_without_length_is_refused() -> None:
    """The end of a chunked answer would be guessed."""
    with pytest.raises(ValueError, match="content length"):
        complete_status(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_the_request_says_how_long_its_body_is() -> None:
    """A server would wait for more, or take the body for the next request."""
    head, body = encoded_request(load(80)).split(b"\r\n\r\n")
    assert b"Content-Length: 8" in head
    assert body == BODY


async def test_a_closed_loop_keeps_all_connections_busy() -> None:
    """The rate of a server would be that of its client."""
    async with answering(lambda _: ANSWER) as port:
        outcome = await run_load(load(port))
    assert outcome.failed == 0
    assert outcome.answered > 20
    assert outcome.p50_ms <= outcome.p99_ms
    assert outcome.rate == pytest.approx(outcome.answered / outcome.seconds)


async def test_an_open_loop_keeps_to_its_rate() -> None:
    """A stalled server would be asked less, and its stall would not show."""
    async with answering(lambda _: ANSWER) as port:
        outcome = await run_load(load(port, rate=200.0))
    assert outcome.rate == pytest.approx(200, rel=0.25)


async def test_answers_other_than_200_are_counted_as_failed() -> None:
    """A replica that refuses quickly would look fast."""
    refusal = ANSWER.replace(b"200 OK", b"503 Not")
    async with answering(lambda number: refusal if number % 2 else ANSWER) as port:
        outcome = await run_load(load(port))
    assert 0 < outcome.failed < outcome.answered


async def test_a_closed_connection_is_an_error() -> None:
    """A server that gave up half-way would be measured by the rest."""
    async with answering(lambda number: ANSWER if number < 10 else b"") as port:
        with pytest.raises(SilentServerError, match="closed a connection"):
            await run_load(load(port))


async def test_nobody_listening_is_an_error() -> None:
    """The benchmark would report a rate of nothing."""
    async with answering(lambda _: ANSWER) as port:
        pass
    with pytest.raises(SilentServerError, match="refused"):
        await run_load(load(port))
