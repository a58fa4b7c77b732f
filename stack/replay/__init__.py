"""Replays a data set as behavioural events, at a chosen speed: the player, its journal, and the sources of the wheel.

CDNOW is public research data and comes from the package index; no rows are in this repository. Readers of further sets
are in ``examples/replay``.
"""
