"""Renders the register of dead letters as a page for operators: reasons and what to do, headers, limits, retries."""

from __future__ import annotations

from schemas.dead_letters import HEADERS, REASONS
from tools.reference.markdown import page, table

BEGINNING = (
    "An invalid record is dead-lettered byte for byte: on the topic `fincoach.dead-letters` and in the table"
    " [`dead_letters`](tables.md#dead_letters). Later records are not held up. A streams worker copies the dead letters of"
    " trainers and deployer from the topic into the table. `fincoach-learning dead-letters` lists, shows,"
    " retries and exports them: [command line](cli.md)."
)
LIMITS = (
    "A worker watches the dead letters of each producer over a sliding window. Too large a ratio of its records, or too many in"
    " a row, raise the alert `dead_letter_limit` about the producer, once for all workers. The alert is cleared when no limit was"
    " exceeded for a whole window. The [settings](settings.md) `FINCOACH_DEAD_LETTER_…` hold the limits.\n\n"
    "At its start, and before it dead-letters a batch that exceeds a limit, a worker decodes the golden messages of its own wheel."
    " If that fails, the worker itself is broken: it stops with exit status 1 and the batch uncommitted, and records wait in Kafka."
)
RETRIES = (
    "A retry is a command: it sends the chosen records to their topics again, with their original key and bytes, through the outbox"
    " of one transaction that also marks them. It leaves out records that were sent again before (unless `--again` is given), that"
    " were ingested in the meantime, or that were tried too often, and all but the last dead letter of a record. A record that is"
    " valid now is archived once, however often it is sent. One that fails again becomes a new dead letter that names the first one in"
    " `retry_of`. Records of topics other than `fincoach.behavioral-events` and `fincoach.predictions` stay in the state *sent again*,"
    " because their readers do not confirm them."
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
