"""The spending runtime: four weekly steps ahead, shared out over the user's own categories, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from modelkit.features import CATEGORIES, UserState
from modelkit.interface import Answer, FloatArray, PredictionRequest
from modelkit.manifest import CALIBRATION, PARAMETERS, LoadedArtifact, Manifest
from modelkit.scoring import Scorer, ScoringRuntime, converted, decoded_file
from models.spending.features import FORECAST_STEPS, SERIES_WEEKS, SPENDING_FEATURES, spending_features
from models.spending.forecasts import FORECASTS
from schemas.errors import ArtifactRejectedError

MEAN_OUTPUTS = tuple(f"mean_{step}" for step in range(1, FORECAST_STEPS + 1))

_USUAL_COVERAGE = 0.8
_SCALE = SPENDING_FEATURES.index("scale")
_FIRST_SHARE = SPENDING_FEATURES.index(f"share_{CATEGORIES[0]}")

ForecastName = Literal["zero", "last_4_weeks", "ewma", "mean_26_weeks", "median_of_own_months"]


class TrivialForecast(msgspec.Struct, frozen=True, kw_only=True, tag_field="method", tag="trivial_forecast"):
    """A baseline: one of ``models.spending.forecasts.FORECASTS`` by name."""

    forecast: ForecastName


class SpendingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest's parameters of a spending version.

    ``outputs`` names the columns of the scores: ``mean_1`` to ``mean_4`` must be there; ``lower_1``, ``upper_1``, …, ``lower_total``,
    ``upper_total`` are taken as the interval where they are; others are scored and logged, not answered.
    """

    outputs: tuple[str, ...] = MEAN_OUTPUTS


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Split-conformal offsets around the mean, in units of the row's ``scale``: [forecast + lower·scale, forecast + upper·scale].

    ``lower`` and ``upper`` have one number for each weekly step; the totals are of the four weeks.
    """

    coverage: float
    lower: list[float]
    upper: list[float]
    lower_total: float
    upper_total: float


_settings = msgspec.json.Decoder(SpendingSettings)
_calibration = msgspec.json.Decoder(Calibration)
_trivial = msgspec.json.Decoder(TrivialForecast)


class SpendingRuntime(ScoringRuntime):
    """Scores are weekly amounts in major units, columns as the manifest names them."""

    model_type = "spending"
    feature_names = SPENDING_FEATURES

    def __init__(self, loaded: LoadedArtifact) -> None:
        super().__init__(loaded)
        outputs = converted(loaded.manifest.parameters, _settings).outputs
        if not set(MEAN_OUTPUTS) <= set(outputs) or len(outputs) != len(self._golden.outputs[0]):
            raise ArtifactRejectedError(f"the outputs {outputs} do not name each column and the four means")
        self._column = {name: index for index, name in enumerate(outputs)}
        self._calibration = (
            decoded_file(loaded.files, CALIBRATION, _calibration) if CALIBRATION in loaded.files else None
        )

    @classmethod
    def baseline_scorer(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Scorer:
        """Return the trivial forecast of the 52 weeks in the row."""
        del manifest
        forecast = FORECASTS[decoded_file(files, PARAMETERS, _trivial).forecast]
        return lambda rows: forecast(rows[:, :SERIES_WEEKS])

    def features(self, state: UserState | None, request: PredictionRequest) -> FloatArray:
        """Return the weekly series, what is derived from it, and the category shares."""
        return spending_features(state, request.as_of)

    def answer(self, features: FloatArray, request: PredictionRequest) -> Answer:
        """Return next week's total with its categories, the four weeks, and intervals where the version is calibrated."""
        scores = self.score_row(features)
        weeks = [max(scores[self._column[name]], 0.0) for name in MEAN_OUTPUTS]
        shares = features[_FIRST_SHARE : _FIRST_SHARE + len(CATEGORIES)].tolist()
        return Answer(
            body={
                "prediction_date": request.as_of.isoformat(),
                "total_predicted": round(weeks[0], 2),
                "total_predicted_4_weeks": round(sum(weeks), 2),
                "weekly_predictions": [round(week, 2) for week in weeks],
                "category_predictions": {
                    name: round(weeks[0] * share, 2)
                    for name, share in zip(CATEGORIES, shares, strict=True)
                    if share > 0.0
                },
                "confidence_intervals": self._intervals(scores, weeks, scale=float(features[_SCALE])),
                "interval_coverage": self._coverage,
                "previous_accuracy": self.manifest.metrics.get("previous_accuracy"),
            }
        )

    @property
    def _coverage(self) -> float | None:
        """Return how often the truth lies within an interval; None where there are none."""
        if self._calibration is not None:
            return self._calibration.coverage
        return _USUAL_COVERAGE if "lower_1" in self._column else None

    def _intervals(self, scores: list[float], weeks: list[float], *, scale: float) -> dict[str, list[float]]:
        if "lower_1" in self._column:
            names = [*(str(step) for step in range(1, FORECAST_STEPS + 1)), "total"]
            bounds = [
                _interval(*(scores[self._column[f"{side}_{name}"]] for side in ("lower", "upper"))) for name in names
            ]
            return _worded(bounds)
        known = self._calibration
        if known is None:
            return {}
        lower, upper = [*known.lower, known.lower_total], [*known.upper, known.upper_total]
        around = zip([*weeks, sum(weeks)], lower, upper, strict=True)
        return _worded([_interval(middle + low * scale, middle + high * scale) for middle, low, high in around])


def _interval(lower: float, upper: float) -> list[float]:
    return [round(max(lower, 0.0), 2), round(max(upper, lower, 0.0), 2)]


def _worded(bounds: list[list[float]]) -> dict[str, list[float]]:
    weeks = {f"week_{number}": bound for number, bound in enumerate(bounds[:-1], start=1)}
    return {"next_week": bounds[0], **weeks, "four_weeks": bounds[-1]}
