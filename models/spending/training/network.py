"""The residual LSTM: it corrects a baseline made of the row's own weeks; untrained, it equals that baseline.

Every input is relative to the series' own scale, so nothing goes stale when a user spends more. The head starts at
zero. An L1 loss on a residual head collapses to zero: the weekly means have a Poisson likelihood, the total a hurdle
with a log-logistic amount.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from models.spending.features import SERIES_WEEKS, SPENDING_FEATURES
from models.spending.training.distribution import LEVELS, STEPS
from models.spending.training.examples import SpendingExamples

UNITS = 48
WEEKS_READ = 26
STATICS = tuple(SPENDING_FEATURES[SERIES_WEEKS + 1 :])  # everything behind the weeks and the scale
BATCH = 256
LARGEST_RATIO = 30.0  # a week beyond thirty times the usual teaches a fit no more than one of thirty
FIRST_SPREAD = 0.5
IGNORED = 1e6  # a spread that turns any feature into zero
SEASON = [STATICS.index(name) for name in ("season_sin", "season_cos")]
WEIGHTS_FILE = "weights.safetensors"


class Parameters(NamedTuple):
    """The distribution of each row: weekly means (n, 4), and logit of buying, location and spread of the total (n,)."""

    weekly: Tensor
    buy_logit: Tensor
    location: Tensor
    spread: Tensor


class ResidualLstm(nn.Module):
    """From rows (n, d) in the order of ``SPENDING_FEATURES`` to the parameters of the forecast."""

    static_mean: Tensor
    static_spread: Tensor
    levels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, UNITS, batch_first=True)
        self.hidden = nn.Linear(UNITS + len(STATICS), UNITS)
        self.head = nn.Linear(UNITS, STEPS + 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("static_mean", torch.zeros(len(STATICS)))
        self.register_buffer("static_spread", torch.ones(len(STATICS)))
        self.register_buffer("levels", torch.tensor(LEVELS, dtype=torch.float32))

    def parameters_of(self, rows: Tensor) -> Parameters:
        """Return baseline plus residual."""
        scale = _column(rows, "scale")
        weeks = torch.log1p(rows[:, SERIES_WEEKS - WEEKS_READ : SERIES_WEEKS] / scale)
        _, (last, _) = self.lstm(weeks.unsqueeze(2))
        statics = (statics_of(rows) - self.static_mean) / self.static_spread
        residual = self.head(torch.relu(self.hidden(torch.cat([last[0], statics], dim=1))))
        level = _column(rows, "ewma") + 0.05 * scale
        active = torch.clamp(_column(rows, "active_share_26"), 1 / 26, 25 / 26)
        per_active_week = torch.clamp(_column(rows, "mean_26") / active, min=0.01)
        not_buying = torch.clamp((1 - active) ** STEPS, 0.01, 0.99)
        return Parameters(
            weekly=level * torch.exp(torch.clamp(residual[:, :STEPS], -4.0, 4.0)),
            buy_logit=(torch.log((1 - not_buying) / not_buying) + residual[:, STEPS : STEPS + 1])[:, 0],
            location=(torch.log(per_active_week) + residual[:, STEPS + 1 : STEPS + 2])[:, 0],
            spread=(FIRST_SPREAD * torch.exp(torch.clamp(residual[:, STEPS + 2 :], -2.0, 2.0)))[:, 0],
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Return the served layout: four weekly means, the probability of buying, the quantiles of the total."""
        found = self.parameters_of(rows)
        buy = torch.sigmoid(found.buy_logit).unsqueeze(1)
        inside = (self.levels.unsqueeze(0) - (1 - buy)) / buy
        clipped = torch.clamp(inside, 1e-6, 1 - 1e-6)
        amounts = torch.exp(
            found.location.unsqueeze(1) + found.spread.unsqueeze(1) * torch.log(clipped / (1 - clipped))
        )
        totals = torch.where(inside > 0, amounts, torch.zeros_like(amounts))
        return torch.cat([found.weekly, buy, totals], dim=1)


def _column(rows: Tensor, name: str) -> Tensor:
    place = SPENDING_FEATURES.index(name)
    return rows[:, place : place + 1]


def statics_of(rows: Tensor) -> Tensor:
    """Return the features beside the weeks; amounts, which alone can be large, are relative to the scale and in logarithms."""
    scale = _column(rows, "scale")
    parts = [
        torch.log1p(_column(rows, name) / scale)
        if name.startswith(("mean_", "ewma", "month_"))
        else _column(rows, name)
        for name in STATICS
    ]
    return torch.cat(parts, dim=1)


def loss_of(found: Parameters, truth: Tensor, scale: Tensor) -> Tensor:
    """Return the mean negative log-likelihood: Poisson for the weeks, Bernoulli for buying, log-logistic for what is spent."""
    weekly = torch.clamp(truth / scale, max=LARGEST_RATIO)
    expected = found.weekly / scale
    poisson = (expected - weekly * torch.log(expected + 1e-6)).mean()
    total = truth.sum(dim=1)
    bought = (total > 0).float()
    buying = nn.functional.binary_cross_entropy_with_logits(found.buy_logit, bought)
    standard = (torch.log(torch.clamp(total, min=0.01)) - found.location) / found.spread
    amount = torch.log(found.spread) + standard + 2 * nn.functional.softplus(-standard)
    return poisson + buying + (amount * bought).sum() / torch.clamp(bought.sum(), min=1.0)


Progress = Callable[[int, int, float], None]


def fit_network(
    examples: SpendingExamples, *, seed: int, passes: int, learning_rate: float, start: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> ResidualLstm:  # fmt: skip
    """Return a network fitted on ``examples``; with ``start``, those weights are fine-tuned and their scaler is kept."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = ResidualLstm()
    rows = torch.from_numpy(np.ascontiguousarray(examples.features))
    truth = torch.from_numpy(np.ascontiguousarray(examples.truth))
    if start is not None:
        network.load_state_dict(dict(start))
    else:
        statics = statics_of(rows)
        network.static_mean.copy_(statics.mean(dim=0))
        network.static_spread.copy_(statics.std(dim=0).clamp(min=0.05))
        if not examples.knows_season:
            network.static_spread[SEASON] = IGNORED
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    generator = np.random.default_rng(seed)
    batches = max(1, len(rows) // BATCH)
    for done in range(passes):
        order = torch.from_numpy(generator.permutation(len(rows)))
        for number in range(batches):
            drawn = order[number * BATCH : (number + 1) * BATCH]
            loss = loss_of(network.parameters_of(rows[drawn]), truth[drawn], _column(rows[drawn], "scale"))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if progress is not None:
                progress(done * batches + number + 1, passes * batches, float(loss.detach()))
    return network.eval()


def scores_of(network: ResidualLstm, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the served layout for rows (n, d)."""
    with torch.no_grad():
        return cast("npt.NDArray[np.float32]", network(torch.from_numpy(np.ascontiguousarray(features))).numpy())


def export_network(network: ResidualLstm) -> bytes:
    """Return the network as one ONNX file with a free first axis. The newer exporter fixes the LSTM's batch to one."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.ones(2, len(SPENDING_FEATURES)),), target,  # type: ignore[arg-type]  # a buffer is taken too
            input_names=["features"], output_names=["scores"],
            dynamic_axes={"features": {0: "n"}, "scores": {0: "n"}}, opset_version=17, dynamo=False, external_data=False,
        )  # fmt: skip
    return target.getvalue()


def checkpoint_of(network: ResidualLstm) -> dict[str, bytes]:
    """Return the training state for the trainers' store."""
    return {WEIGHTS_FILE: save_tensors(network.state_dict())}


def weights_in(checkpoint: Mapping[str, bytes]) -> dict[str, Tensor] | None:
    """Return the weights of a checkpoint of this very shape, or None."""
    if WEIGHTS_FILE not in checkpoint:
        return None
    weights = load_tensors(checkpoint[WEIGHTS_FILE])
    wanted = {name: tensor.shape for name, tensor in ResidualLstm().state_dict().items()}
    return weights if {name: tensor.shape for name, tensor in weights.items()} == wanted else None
