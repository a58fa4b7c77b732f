"""The fault proxy does to a connection what its name says, and undoes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from stack.ports import free_port
from tests.chaos.faults.proxy import HOST, FaultProxy

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo(asyncio.Protocol):
    """Sends everything back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.transport.write(data)


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """Yield a proxy before an echo service."""
    service = await asyncio.get_running_loop().create_server(Echo, HOST, 0)
    made = FaultProxy(free_port(), service.sockets[0].getsockname()[1])
    async with made.running():
        yield made
    service.close()


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Ends]:
    """Yield a connection through the proxy."""
    reader, writer = await asyncio.open_connection(HOST, proxy._ports[0])
    try:
        yield reader, writer
    finally:
        writer.close()


async def asked(ends: Ends, text: bytes = b"hello") -> bytes:
    """Return the answer to ``text``."""
    ends[1].write(text)
    return await ends[0].readexactly(len(text))


async def test_what_is_whole_passes_unchanged(proxy: FaultProxy) -> None:
    """The proxy forwards bytes unchanged."""
    async with connected(proxy) as ends:
        assert await asked(ends) == b"hello"
    assert (proxy.passed_bytes, proxy.held_chunks) == (10, 0)


async def test_a_slow_connection_takes_its_time(proxy: FaultProxy) -> None:
    """A slow connection delays each chunk in both directions."""
    async with connected(proxy) as ends:
        proxy.delay_seconds = 0.1
        began = time.monotonic()
        assert await asked(ends) == b"hello"
        assert time.monotonic() - began >= 0.2  # there and back
        assert proxy.held_chunks == 2
        proxy.heal()
        began = time.monotonic()
        await asked(ends)
        assert time.monotonic() - began < 0.1


async def test_a_narrow_connection_lets_little_through(proxy: FaultProxy) -> None:
    """A narrow connection limits the bytes per second."""
    async with connected(proxy) as ends:
        proxy.bytes_per_second = 10_000.0
        began = time.monotonic()
        await asked(ends, b"x" * 1000)
        assert time.monotonic() - began >= 0.2


async def test_a_silent_connection_goes_on_where_it_stopped(proxy: FaultProxy) -> None:
    """A silent connection loses no bytes and resumes where it stopped."""
    async with connected(proxy) as ends:
        await asked(ends)
        proxy.silence()
        ends[1].write(b"later")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ends[0].readexactly(1)
        proxy.heal()
        assert await ends[0].readexactly(5) == b"later"


async def test_a_cut_connection_is_reset_and_new_ones_are_refused(proxy: FaultProxy) -> None:
    """A cut resets open connections and refuses new ones."""
    async with connected(proxy) as ends:
        await asked(ends)
        proxy.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asked(ends)
    assert proxy.cut_connections == 1
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        async with connected(proxy) as ends:
            await asked(ends)
    assert proxy.refused_connections == 1
    proxy.heal()
    async with connected(proxy) as ends:
        assert await asked(ends) == b"hello"


async def test_nobody_behind_the_proxy_looks_like_a_service_that_is_away() -> None:
    """Without a service behind the proxy, connections end instead of falling silent."""
    lonely = FaultProxy(free_port(), free_port())
    async with lonely.running(), connected(lonely) as ends:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asked(ends)
