"""Keeping a lease during work: work whose lease is lost is stopped, whatever it waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from backends.telemetry.logs import get_logger
from schemas.errors import RetryLaterError

log = get_logger("leases")
RENEWALS_A_LEASE = 4  # one or two late renewals do not end the lease


@contextlib.asynccontextmanager
async def kept_lease(
    renew: Callable[[], Awaitable[None]], *, lease_seconds: float, subject: str
) -> AsyncIterator[None]:
    """Renew a lease while the block runs; a lost lease cancels the block and raises its error in place of the cancellation.

    ``renew`` raises :class:`~schemas.errors.LostLeaseError` when another owner has taken over. After a RetryLaterError it is
    tried again: the work continues, and the fence decides at the end.

    Raises:
        LostLeaseError: as ``renew`` raises it.
    """
    block = asyncio.current_task()
    assert block is not None  # noqa: S101 - coroutines run in tasks
    renewal = asyncio.create_task(_renewed(renew, every_seconds=lease_seconds / RENEWALS_A_LEASE, subject=subject))
    lost = False

    def stop_block(task: asyncio.Task[None]) -> None:
        nonlocal lost
        if not task.cancelled():
            lost = True
            block.cancel()

    renewal.add_done_callback(stop_block)
    try:
        yield
    except asyncio.CancelledError:
        error = renewal.exception() if lost and not block.uncancel() else None
        if error is not None:
            raise error from None
        raise
    finally:
        renewal.remove_done_callback(stop_block)
        renewal.cancel()


async def _renewed(renew: Callable[[], Awaitable[None]], *, every_seconds: float, subject: str) -> None:
    while True:
        await asyncio.sleep(every_seconds)
        try:
            await renew()
        except RetryLaterError as error:
            log.warning("lease_not_renewed", subject=subject, error=repr(error))
