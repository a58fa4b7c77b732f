"""What sampled stacks sum up to."""

from __future__ import annotations

import pytest

from benchmarks.sampling import module_of, profile_table

WORKER = "thread (1)"
RUN = "_run (asyncio/events.py:84)"
AGENT = "take (streams/agents.py:61)"


@pytest.mark.parametrize(
    ("stack", "module"),
    [
        ([WORKER, RUN, AGENT, "copy (backends/database/repositories/ingestion.py:9)", "query (asyncpg/connection.py:3)"],
         "backends/database/repositories/ingestion.py"),
        ([WORKER, RUN, AGENT], "streams/agents.py"),
        ([WORKER, RUN, "fetch (aiokafka/consumer/fetcher.py:300)"], "library aiokafka"),
        ([WORKER, "wait (threading.py:320)"], "Python threading.py"),
    ],
)  # fmt: skip
def test_a_sample_belongs_to_our_deepest_module_or_to_the_library_at_its_end(stack: list[str], module: str) -> None:
    """The table would name asyncio for everything, or blame a library for what a statement of ours makes it do."""
    assert module_of(stack) == module


def test_shares_add_up_and_come_in_order() -> None:
    """The largest part would not be seen at once, or a part would seem larger than it is."""
    collapsed = (
        f"{WORKER};{RUN};{AGENT} 30\n{WORKER};{RUN};fold (models/features/fold.py:3) 60\n{WORKER};{RUN};{AGENT} 10\n"
    )
    first, *lines = profile_table(collapsed).splitlines()
    assert "100 samples" in first
    assert [line.split() for line in lines] == [
        ["models/features/fold.py", "60.0", "%"],
        ["streams/agents.py", "40.0", "%"],
    ]
