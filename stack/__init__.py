"""The whole system on one machine: embedded Postgres and broker, the supervisor, replay of real events, the demo.

It may start everything; nothing imports it.
"""
