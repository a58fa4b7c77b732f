"""Adapters to the outside: broker, database, artifact store, telemetry. No judgement of the product lives here."""
