"""Version 0: the mean of the last 26 weeks."""

from __future__ import annotations

from modelkit.baselines import Baseline
from modelkit.manifest import PARAMETERS
from models.spending.runtime import TrivialForecast

BASELINE = Baseline(files={PARAMETERS: TrivialForecast(forecast="mean_26_weeks")})
