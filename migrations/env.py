"""What Alembic runs: brings one database up or down in one transaction, or writes the SQL of it.

Callers that hold a connection hand it over in ``config.attributes["connection"]`` and commit themselves; the
command line has none, and gets one from ``FINCOACH_DATABASE_URL``.
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

# A migration that cannot get its lock at once gives up: while it waits, everybody else queues behind it.
LOCK_TIMEOUT = "5s"
# One migration at a time, whoever starts it.
MIGRATION_LOCK = 0x0A1E3B1C
PARTITION = re.compile(rf"({'|'.join(PARTITIONED_TABLES)})_(default|history|\d{{4}}_\d{{2}})")


def is_ours(_item: SchemaItem, name: str | None, kind: str, *_: object) -> bool:
    """Return whether a comparison looks at this object: the monthly children come and go with time."""
    return kind != "table" or PARTITION.fullmatch(name or "") is None


def migrate(connection: Connection) -> None:
    """Run the wanted migrations on ``connection``; its owner commits.

    Raises:
        sqlalchemy.exc.DBAPIError: when a lock is not free within 5 s; nothing was changed.
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
    """Run the wanted migrations on the database that the environment names."""
    url = ProcessSettings().database_url.get_secret_value()
    engine = create_engine(url, application_name="fincoach-migrations", idle_in_transaction_seconds=60)
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


def write_sql() -> None:
    """Write the SQL of the wanted migrations instead of running them (``alembic upgrade head --sql``)."""
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
