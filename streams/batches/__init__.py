"""The transaction of one batch: intake, archive, user states, dead letters."""
