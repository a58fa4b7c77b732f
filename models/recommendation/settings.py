"""Settings of the recommendation trainer, read from ``FINCOACH_…`` variables."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

IMPLICIT_SIGNALS = frozenset({"unanswered_view", "time_on_page"})
LARGEST_IMPLICIT = 0.1  # half of what the smallest answer is worth by default


class RecommendationTrainingSettings(BaseSettings):
    """What an answer to a recommendation is worth, and how much evidence a new policy needs. Read by the training process."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", frozen=True, extra="ignore")

    recommendation_reward_weights: dict[str, float] = Field(
        default={"implement": 1.0, "helpful": 0.2, "click": 0.4, "dismiss": -0.5, "not_helpful": -1.0},
        description="Reward of each kind of answer (JSON); the kinds of one recommendation add up, within -1 and 1.",
    )
    recommendation_implicit_weights: dict[str, float] = Field(
        default={"unanswered_view": -0.01, "time_on_page": 0.05},
        description="Weights in a fit of a view without an answer and of a minute on its page (JSON); judgements ignore them; together at most 0.1.",
    )
    recommendation_reward_window_hours: float = Field(
        default=168.0, gt=0, description="Answers that come later than this after the view do not count."
    )
    recommendation_gamma: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Discount of later rewards; 0 for one-step feedback, 0.9 where rewards are delayed.",
    )
    recommendation_effective_samples: int = Field(
        default=500,
        ge=1,
        description="Effective samples asked of a large holdout; a smaller one is asked for a tenth of its rows, at least 100.",
    )

    @field_validator("recommendation_implicit_weights")
    @classmethod
    def _small(cls, weights: dict[str, float]) -> dict[str, float]:
        """Refuse weights with which silence could weigh as much as an answer."""
        unknown = sorted(weights.keys() - IMPLICIT_SIGNALS)
        if unknown:
            raise ValueError(
                f"there is no implicit signal {unknown[0]!r}; choose of {', '.join(sorted(IMPLICIT_SIGNALS))}"
            )
        if not sum(abs(weight) for weight in weights.values()) <= LARGEST_IMPLICIT:
            raise ValueError(
                f"implicit weights may add up to {LARGEST_IMPLICIT} at most: an answer must always weigh more"
            )
        return weights
