"""The edge of the service: ledger topics as batches for the service, and the live view in a Faust table."""
