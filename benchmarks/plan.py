"""The comparisons of a run and their sizes. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[[str], None]
NAMES = (
    "ingest_vs_naive_faust",
    "ingest_vs_bare_sql",
    "ingest_vs_quix_postgres",
    "ingest_with_duplicates_vs_without",
    "transport_vs_bare_aiokafka",
    "ingest_rss_growth_mib",
    "crossing_to_threshold_p99_ms",
    "failover_seconds",
    "restart_caught_up_seconds",
    "http_rate_vs_mlserver",
    "http_p99_vs_mlserver",
    "p99_during_swaps_vs_without",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The requested comparisons and their sizes.

    Attributes:
        names: the comparisons to make.
        rounds: rounds of each side of a comparison; the medians are compared.
        events: events on the topic; our worker ingests all of them in each round.
        naive_events: how many of them the naive agent counts: enough to meet the machine's ups and downs at a steady rate.
            All would take most of a minute.
        transport_events: events on the topic that is only decoded and counted.
        history_events: archived events behind the worker when it is restarted.
        growth_events: events over which its memory is watched.
        backlog_events: unread events in one more restart.
        crossing_seconds: duration of the flow in which thresholds are crossed.
        least_crossings: fewest crossings for a meaningful percentile.
        http_seconds: duration of each HTTP measurement, after a second of warm-up.
        swap_seconds: duration of each measurement with and without swaps.
        swap_every_seconds: time between two swaps.
        swap_rate: requests per second while versions are swapped.
        connections: connections of the load generator.
        profile: whether one more run of ingestion is sampled.
    """

    names: tuple[str, ...] = NAMES
    rounds: int = 5
    events: int = 240_000
    naive_events: int = 72_000
    transport_events: int = 240_000
    history_events: int = 1_000_000
    growth_events: int = 5_000_000
    backlog_events: int = 200_000
    crossing_seconds: float = 60.0
    least_crossings: int = 200
    http_seconds: float = 4.0
    swap_seconds: float = 8.0
    swap_every_seconds: float = 0.5
    swap_rate: float = 1_000.0
    connections: int = 16
    profile: bool = False

    def wants(self, *names: str) -> bool:
        """Whether any of ``names`` is requested."""
        return any(name in self.names for name in names)


def plan_for(*, only: tuple[str, ...] = (), quick: bool = False, profile: bool = False) -> Plan:
    """Return the plan of a run; a quick one is a smoke test, its figures mean little.

    Raises:
        ValueError: a comparison does not exist; the message lists those that do.
    """
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise ValueError(f"there is no comparison {unknown[0]}; there are {', '.join(NAMES)}")
    names = tuple(name for name in NAMES if not only or name in only)
    if not quick:
        return Plan(names=names, profile=profile)
    return Plan(
        names=names,
        rounds=1,
        events=20_000,
        naive_events=4_000,
        transport_events=20_000,
        history_events=50_000,
        growth_events=150_000,
        backlog_events=20_000,
        crossing_seconds=5.0,
        least_crossings=10,
        http_seconds=1.0,
        swap_seconds=2.0,
        profile=profile,
    )
