"""The answer, in the host application's own shape."""

from __future__ import annotations

from pydantic import Field

from schemas.api import Count, Name, Number, Ratio, ServedShape


class UserSegmentInfo(ServedShape):
    """The segment to which a user's behaviour belongs.

    ``characteristics`` are the segment's medians of the features that tell it apart; ``peer_comparison`` says how many spreads
    the user lies from each, beside the segment's share of all users. The rest is ours: the same in words, and in figures.
    """

    segment_id: Count
    segment_name: Name
    confidence: Ratio
    characteristics: dict[str, Number]
    peer_comparison: dict[str, Number] | None = None
    description: list[str] = Field(default_factory=list)
    compared_features: dict[str, dict[str, Number | None]] = Field(default_factory=dict)
