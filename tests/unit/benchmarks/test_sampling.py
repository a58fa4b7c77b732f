"""What sampled stacks sum up to."""

from __future__ import annotations

import pytest

from benchmarks.sampling import module_of, profile_table

MAIN = "thread (7): MainThread"
OURS = "<module> (streams/__main__.py:18)"
RUN = "_run (asyncio/events.py:84)"
AGENT = "take (streams/reading/ledger.py:61)"
COPY = ["copy (backends/database/repositories/ingestion.py:9)", "query (asyncpg/connection.py:3)"]


@pytest.mark.parametrize(
    ("stack", "module"),
    [
        ([OURS, RUN, AGENT, *COPY], "backends/database/repositories/ingestion.py"),
        ([OURS, RUN, AGENT], "streams/reading/ledger.py"),
        ([OURS, RUN, "fetch (aiokafka/consumer/fetcher.py:300)"], "library aiokafka"),
        ([OURS, RUN, "acquire (threading.py:320)"], "library threading"),
        ([OURS, RUN, "select (selectors.py:468)"], None),
        ([], "not known"),
    ],
)
def test_a_sample_belongs_to_our_deepest_module_or_to_the_library_at_its_end(
    stack: list[str], module: str | None
) -> None:
    """The table would name asyncio for everything, or blame a library for what a statement of ours makes it do."""
    assert module_of(stack) == module


def test_shares_add_up_and_come_in_order() -> None:
    """The largest part would not be seen at once, or a part would seem larger than it is because others wait."""
    stacks = [
        ([RUN, AGENT], 30),
        ([RUN, "fold (modelkit/features/fold.py:3)"], 60),
        ([RUN, AGENT], 10),
        ([RUN, "select (selectors.py:468)"], 900),
    ]
    collapsed = "\n".join(f"{';'.join((MAIN, OURS, *frames))} {count}" for frames, count in stacks)
    first, *lines = profile_table(collapsed).splitlines()
    assert "100 samples" in first
    assert [line.split() for line in lines] == [
        ["modelkit/features/fold.py", "60.0", "%"],
        ["streams/reading/ledger.py", "40.0", "%"],
        ["MainThread", "100.0", "%"],
    ]
