"""Reading the ledger topics: the Faust app, its transport, positions, lanes and routes."""
