"""The Complete Journey: coupon campaigns sent to households, and the redemptions, in 2017 (84.51 degrees, CC0).

A campaign that was sent is a viewed recommendation with its type (A, B, C) as action; a redeemed coupon implements it.
A campaign that expires without a redemption yields no feedback. The set has no propensities, so nothing off-policy can
be learned from it. The receipts are a random sample of lines and are not played.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Literal, NamedTuple

from examples.replay.tables import SortedSource, moment, rows_of
from fincoach_events.events import RecommendationInteraction
from stack.replay.settings import ReplaySettings
from stack.replay.source import envelope

ACTION_SET = "completejourney-3"
_NOON = dt.timedelta(hours=12)


class CampaignFact(NamedTuple):
    """A campaign that was sent, or a coupon of it that was redeemed."""

    occurred_at: dt.datetime
    interaction: Literal["view", "implement"]
    campaign: str
    campaign_type: str
    household: str
    coupon: str | None


def completejourney(settings: ReplaySettings) -> SortedSource[CampaignFact]:
    """Return campaigns and redemptions."""
    return SortedSource("completejourney", _facts(settings), _interaction)


def _facts(settings: ReplaySettings) -> Iterator[CampaignFact]:
    folder = "completejourney"
    campaigns = {
        row["campaign_id"]: row for row in rows_of(settings.data_file(f"{folder}/campaign_descriptions.csv.gz"))
    }
    for row in rows_of(settings.data_file(f"{folder}/campaigns.csv.gz")):
        campaign = campaigns[row["campaign_id"]]
        sent_at = moment(campaign["start_date"])
        yield CampaignFact(sent_at, "view", row["campaign_id"], campaign["campaign_type"], row["household_id"], None)
    for row in rows_of(settings.data_file(f"{folder}/coupon_redemptions.csv.gz")):
        campaign = campaigns[row["campaign_id"]]
        # Only the day is known. Noon puts a redemption after a campaign that was sent on the same day.
        redeemed_at = moment(row["redemption_date"]) + _NOON
        yield CampaignFact(
            redeemed_at,
            "implement",
            row["campaign_id"],
            campaign["campaign_type"],
            row["household_id"],
            row["coupon_upc"],
        )


def _interaction(fact: CampaignFact) -> RecommendationInteraction:
    recommendation_id = f"campaign:{fact.campaign}:{fact.household}"
    row = (
        f"{recommendation_id}:sent"
        if fact.coupon is None
        else f"{recommendation_id}:{fact.coupon}:{fact.occurred_at:%Y-%m-%d}"
    )
    return RecommendationInteraction(
        **envelope("completejourney", row, user=fact.household, occurred_at=fact.occurred_at),
        recommendation_id=recommendation_id,
        interaction_type=fact.interaction,
        action_set=ACTION_SET,
        action=fact.campaign_type,
        additional_data=None if fact.coupon is None else {"coupon_upc": fact.coupon},
    )
