"""The whole system on one machine: embedded Postgres and broker, the supervisor, replay of real events, the demo.

It may import every other package; none imports it.
"""
