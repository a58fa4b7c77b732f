"""The answer, in the host application's own shape."""

from __future__ import annotations

from schemas.api import Count, Name, Number, Ratio, ServedShape


class UserSegmentInfo(ServedShape):
    """The segment to which a user's behaviour belongs."""

    segment_id: Count
    segment_name: Name
    confidence: Ratio
    characteristics: dict[str, Number]
    peer_comparison: dict[str, Number] | None = None
