"""Runs the trial load in a throw-away child process, with a time-out."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from backends.telemetry.logs import get_logger
from deployer.verification import TrialOrder, TrialReport

log = get_logger("deployer.trial")
LONGEST_COMPLAINT_CHARACTERS = 500


async def try_in_child(order: TrialOrder, *, timeout_seconds: float) -> TrialReport:
    """Return the report of the trial; a child that dies, hangs or answers nonsense is an objection too."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deployer.verification",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_seconds):
            output, complaints = await child.communicate(msgspec.json.encode(order))
    except TimeoutError:
        return TrialReport(objection=f"the trial load took longer than {timeout_seconds:.0f} s")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        complaint = complaints.decode(errors="replace")[-LONGEST_COMPLAINT_CHARACTERS:]
        log.warning("trial_died", address=order.address, status=child.returncode, complaint=complaint)
        return TrialReport(objection=f"the trial load died ({_ending(child.returncode)})")
    return msgspec.json.decode(output, type=TrialReport)


def _ending(status: int | None) -> str:
    return f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
