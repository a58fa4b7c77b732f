"""Every index earns its keep: its question is answered with it at a lower cost than without it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.tables import metadata
from tests.migrations.index_cases import CASES, FILLS, IndexCase

CHILD_INDEXES = """
SELECT c.relname FROM pg_class AS c WHERE c.oid = to_regclass(:name)
UNION SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:name)
"""


class Plan(NamedTuple):
    """How PostgreSQL answers: its estimated cost, the milliseconds it took, scans and indexes."""

    cost: float
    milliseconds: float
    scans: set[str]
    indexes: set[str]


async def filled(engine: AsyncEngine) -> None:
    """Write the rows of every case and let the planner know of them."""
    async with engine.begin() as connection:
        for table, rows in FILLS.items():
            await connection.execute(sa.text(f"INSERT INTO {table} {rows}".replace(":", "\\:")))
        await connection.execute(sa.text("ANALYZE"))


async def explained(connection: AsyncConnection, query: str) -> Plan:
    """Run ``query`` and return its plan."""
    document = await connection.scalar(sa.text(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".replace(":", "\\:")))
    nodes = list(flattened(document[0]["Plan"]))
    return Plan(
        cost=document[0]["Plan"]["Total Cost"],
        milliseconds=document[0]["Execution Time"],
        scans={node["Node Type"] for node in nodes if "Scan" in node["Node Type"]},
        indexes={node["Index Name"] for node in nodes if "Index Name" in node},
    )


def flattened(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a plan's node and all below it."""
    return [node, *(each for below in node.get("Plans", []) for each in flattened(below))]


async def compared(engine: AsyncEngine, case: IndexCase) -> tuple[Plan, Plan, set[str]]:
    """Return the plans without and with the index, and the names it has in the partitions; changes nothing."""
    async with engine.connect() as connection:
        names = set((await connection.scalars(sa.text(CHILD_INDEXES), {"name": case.name})).all())
        after = await explained(connection, case.query)
        await connection.execute(sa.text(f"DROP INDEX {case.name}"))
        before = await explained(connection, case.query)
        await connection.rollback()
    return before, after, names


def shown(case: IndexCase, before: Plan, after: Plan) -> str:
    """Return one line of the table in docs/database.md."""
    sides = " | ".join(
        f"{' + '.join(sorted(plan.scans))}, {plan.cost:,.0f}, {plan.milliseconds:.2f} ms" for plan in (before, after)
    )
    return f"| `{case.name}` | {case.asked_by} | {sides} |"


async def test_each_index_is_used_and_cheaper_than_none(engine: AsyncEngine) -> None:
    """Each index is used by its query, which costs more without it."""
    await filled(engine)
    useless = []
    for case in CASES:
        before, after, names = await compared(engine, case)
        print(shown(case, before, after))  # noqa: T201 - the evidence that docs/database.md records
        if not (names & after.indexes and before.cost > 2 * after.cost):
            useless.append(case.name)
    assert useless == []


def test_each_index_has_a_question() -> None:
    """Each index has a query that needs it."""
    indexes = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    assert indexes == {case.name for case in CASES}


def test_each_question_asks_the_table_of_its_index() -> None:
    """Each query reads the table of its index."""
    owners = {str(index.name): table.name for table in metadata.tables.values() for index in table.indexes}
    wrong = [case.name for case in CASES if not re.search(rf"FROM {owners[case.name]}\b", case.query)]
    assert wrong == []
