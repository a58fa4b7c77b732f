"""Renders the register of dead letters as a page for operators: reasons and what to do, headers, limits, retries."""

from __future__ import annotations

from schemas.dead_letters import HEADERS, REASONS
from tools.reference.markdown import page, table

BEGINNING = (
    "A record that cannot be taken in is put aside byte for byte: on the topic `fincoach.dead-letters` and in the table"
    " [`dead_letters`](tables.md#dead_letters). What stands behind it flows on. Letters of trainers and deployer"
    " come into the table from the topic, where a worker of streams reads them. `fincoach-learning dead-letters` lists, shows,"
    " retries and exports them: [command line](cli.md)."
)
LIMITS = (
    "A worker watches the dead letters of each producer over a sliding window. More than a ratio of its records, or so many one"
    " after the other, raise the alert `dead_letter_limit` about the producer, once for all workers; it is cleared when for a whole"
    " window nothing exceeded a limit. The figures are [settings](settings.md) that begin with `FINCOACH_DEAD_LETTER_`.\n\n"
    "Before it puts the batch aside that exceeds a limit, and at its start, a worker reads the golden messages of its own wheel."
    " If it fails on them it is broken itself: it stops with exit status 1 and the batch uncommitted, and records wait in Kafka."
)
RETRIES = (
    "A retry is a command: the chosen records go to their topics again, with their own key and bytes, through the outbox of one"
    " transaction that also marks them. What was sent again before is left out (but with `--again`), as is what was taken in"
    " meanwhile, what was tried too often, and all but the last letter of a record. A record that is valid now is archived once,"
    " however often it is sent; one that fails again is a letter of its own that names the first one in `retry_of`. Records of"
    " topics other than `fincoach.behavioral-events` and `fincoach.predictions` stay in the state *sent again*: who reads them does not say that it did."
)


def render() -> str:
    """Return docs/reference/dead-letters.md."""
    reasons = [
        [f"`{code}`", reason.meaning, str(reason.fault), str(reason.retry_helps), reason.next_step]
        for code, reason in REASONS.items()
    ]
    headers = [[f"`{name}`", meaning] for name, meaning in HEADERS.items()]
    return page(
        "Dead letters",
        BEGINNING,
        f"## Reasons\n\n{table(['reason', 'meaning', 'fault', 'does a retry help', 'what to do'], reasons)}",
        f"## Headers\n\n{table(['header', 'meaning'], headers)}",
        f"## Limits\n\n{LIMITS}",
        f"## Retries\n\n{RETRIES}",
    )
