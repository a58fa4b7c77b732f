"""Alembic's environment: upgrades or downgrades one database in one transaction, or writes the SQL for it.

Callers with a connection pass it in ``config.attributes["connection"]`` and commit themselves. The command line has
none and connects to ``FINCOACH_DATABASE_URL``.
"""

from __future__ import annotations

import asyncio
import re

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection
from sqlalchemy.schema import SchemaItem

from backends.database.engine import create_engine
from backends.settings import ProcessSettings
from schemas.tables import PARTITIONED_TABLES, metadata

# A migration that does not get its lock soon gives up: while it waits, everybody else queues behind it.
LOCK_TIMEOUT = "5s"
# One migration at a time, whoever starts it.
MIGRATION_LOCK = 0x0A1E3B1C
PARTITION = re.compile(rf"({'|'.join(PARTITIONED_TABLES)})_(default|history|\d{{4}}_\d{{2}})")


def is_ours(_item: SchemaItem, name: str | None, kind: str, *_: object) -> bool:
    """Return whether comparisons include this object: the monthly partitions come and go with time."""
    return kind != "table" or PARTITION.fullmatch(name or "") is None


def migrate(connection: Connection) -> None:
    """Run the requested migrations on ``connection``; its owner commits.

    Raises:
        sqlalchemy.exc.DBAPIError: a lock was not free within 5 s; nothing was changed.
    """
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=is_ours,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_by_settings() -> None:
    """Run the requested migrations on the database named in the environment."""
    url = ProcessSettings().database_url.get_secret_value()
    engine = create_engine(url, application_name="fincoach-migrations", idle_in_transaction_seconds=60)
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


def write_sql() -> None:
    """Write the SQL of the requested migrations instead of running them (``alembic upgrade head --sql``)."""
    options = {"paramstyle": "named"}  # other styles double each percent sign
    context.configure(dialect_name="postgresql", dialect_opts=options, target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
elif (given := context.config.attributes.get("connection")) is not None:
    migrate(given)
else:
    asyncio.run(migrate_by_settings())
