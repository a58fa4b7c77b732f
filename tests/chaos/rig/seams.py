"""Where the product writes: the functions at which tests may place a trap, and how to find each one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class SeamGoneError(Exception):
    """A function of the product is not where a trap or a seeded fault expects it."""


@dataclass(frozen=True, slots=True)
class Seam:
    """A function of the product that writes, or the commit of the transactions that call it.

    Attributes:
        name: ``Class.function``, or ``commit of …``.
        target: its location, ``module:Class.function``.
        services: the services whose processes are killed there.
        is_commit: whether the seam is the commit.
        passages: how often a run is sure to pass it; if there are several, later passages are tried too.
    """

    name: str
    target: str
    services: tuple[str, ...] = ()
    is_commit: bool = False
    passages: int = 1


def found(target: str) -> tuple[Any, str, Callable[..., Any]]:
    """Return the owner of ``module:Class.function``, the name of its attribute, and the function.

    Raises:
        SeamGoneError: there is none.
    """
    module, _, path = target.partition(":")
    try:
        owner: Any = importlib.import_module(module)
        *parents, attribute = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        original: Callable[..., Any] = getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise SeamGoneError(f"the seam {target} is gone: {error}; update its location in tests/chaos") from error
    return owner, attribute, original


def _calls(owner: str, *functions: str, services: tuple[str, ...], passages: int = 1) -> list[Seam]:
    """``owner`` is ``module:Class``, or ``module:`` for functions of a module."""
    module, _, name = owner.partition(":")
    path = f"{name}." if name else ""
    return [
        Seam(f"{path}{function}", f"{module}:{path}{function}", services, passages=passages) for function in functions
    ]


def _commit(name: str, target: str, *services: str, passages: int = 1) -> Seam:
    return Seam(f"commit of {name}", target, services, is_commit=True, passages=passages)


_INGESTION = "backends.database.repositories.ingestion:IngestionRepository"
_DEAD_LETTERS = "backends.database.repositories.dead_letters:DeadLetterRepository"
_DATASETS = "backends.database.repositories.datasets:DatasetRepository"
_TRAINING = "backends.database.repositories.training:TrainingRepository"
_DEPLOYMENT = "backends.database.repositories.deployment:DeploymentRepository"
_WORK = "backends.database.unit_of_work:UnitOfWork"
_PRODUCER = "backends.broker.kafka:BrokerProducer"
_STREAMS, _TRAINERS, _DEPLOYER, _SERVING = ("streams",), ("trainers",), ("deployer",), ("serving",)

SEAMS: tuple[Seam, ...] = (
    # Not writes: where a worker is frozen with a batch in hand, and where a fetched batch is dropped.
    Seam("batch", "streams.batches.events:EventIngestion.ingest"),
    Seam("delivery", "backends.broker.partitions:PartitionReader.take"),
    # A start.
    *_calls("backends.database.repositories.models:ModelRepository", "register", services=_STREAMS),
    # A batch.
    *_calls("streams.bootstrap:", "next_offsets", "ensure_month_partitions", services=_STREAMS),
    *_calls(_INGESTION, "advance_ledger", "archive", "save_states", "save_pane", services=_STREAMS, passages=8),
    *_calls(_DEAD_LETTERS, "save", "announce", "settle", services=_STREAMS, passages=3),
    *_calls(_DEAD_LETTERS, "send_again", "remember_limit", "forget_limits", "save_unknown", services=_STREAMS),
    _commit("a batch", f"{_INGESTION}.save_pane", "streams", passages=8),
    # A data set.
    *_calls(_DATASETS, "cursors", "move_cursors", "update_open", "save_evaluation", "save_quality", services=_STREAMS, passages=4),
    *_calls(_DATASETS, "save_arrivals", services=_STREAMS),
    *_calls(_DATASETS, "save_epoch", "close_and_open_next", services=_STREAMS, passages=2),
    _commit("panes taken", f"{_DATASETS}.update_open", "streams", passages=4),
    _commit("an epoch", f"{_DATASETS}.save_epoch", "streams", passages=2),
    # A command.
    *_calls("backends.control:", "claim", "answer", services=("streams", "deployer")),
    *_calls(_DATASETS, "change_rule", services=_STREAMS),
    *_calls("backends.database.repositories.reviews:ReviewRepository", "quarantine", services=_STREAMS),
    _commit("a command", "backends.control:answer", "streams", "deployer"),
    # Announcements.
    *_calls(_WORK, "publish", "publish_raw", services=("streams", "trainers", "deployer")),
    *_calls(_PRODUCER, "publish_batch", services=("streams", "trainers", "deployer", "serving")),
    _commit("a relay", f"{_PRODUCER}.publish_batch", "streams", "trainers", "deployer"),
    *_calls("backends.database.outbox:OutboxRelay", "publish_once", services=_STREAMS, passages=8),
    *_calls(_PRODUCER, "publish", services=("streams", "trainers", "deployer", "serving")),
    # A training.
    *_calls(_TRAINING, "add_job", "lease", "note_snapshot", "add_snapshot", "store_snapshot", "finish", "renew", services=_TRAINERS),
    *_calls(_TRAINING, "give_back", "retry", "fail", services=_TRAINERS),
    _commit("a job", f"{_TRAINING}.add_job", "trainers"),
    _commit("a snapshot's name", f"{_TRAINING}.add_snapshot", "trainers"),
    _commit("a verdict", f"{_TRAINING}.finish", "trainers"),
    *_calls("backends.broker.kafka:BrokerConsumer", "commit", services=("streams", "trainers", "deployer")),
    *_calls("backends.store.content:ContentStore", "put", services=("trainers", "deployer")),
    # A deployment.
    *_calls(_DEPLOYMENT, "add_version", "begin", "add_decision", services=_DEPLOYER, passages=4),
    *_calls(_DEPLOYMENT, "move", "count_roll_back", "see_replica", "forget_replica", services=_DEPLOYER),
    *_calls(_WORK, "audit", services=_DEPLOYER, passages=4),
    _commit("a first version", f"{_DEPLOYMENT}.begin", "deployer", passages=4),
    _commit("a new state", f"{_DEPLOYMENT}.move", "deployer"),
)  # fmt: skip
_BY_NAME = {seam.name: seam for seam in SEAMS}

# Functions that write but that no sweep passes, each with its reason.
EXEMPT = {
    "IngestionRepository.remove": "undoes an event on which the reducer failed: no valid event makes it fail",
    "ReviewRepository.approve": "part of a command's transaction, whose claim, answer and commit are swept; needs a data set that waits",
    "ReviewRepository.open_behind": "as above; a quarantined open data set leaves a gap in the epochs, which the oracle takes for a loss",
    "ContentStore.delete": "removes artifacts that nothing refers to any more, an hour after the start",
}


def seam(name: str) -> Seam:
    """Return the seam called ``name``.

    Raises:
        SeamGoneError: there is none.
    """
    if name not in _BY_NAME:
        raise SeamGoneError(f"there is no seam {name!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
