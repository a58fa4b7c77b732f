"""PostgreSQL: the engine, the unit of work that alone commits, the outbox and the repositories."""
