"""The trial load in a child process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from deployer.trial import try_in_child
from deployer.verification import TrialOrder, tried
from modelkit.manifest import MODEL, build_artifact, open_artifact
from tests.processes import eventually
from tests.versions import Installation, goal_artifact, reference_of


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Give keys and a store."""
    return Installation(tmp_path)


def order(installation: Installation, address: str, **fields: object) -> TrialOrder:
    """Return the order to try what is stored at ``address`` as a goal model."""
    given = TrialOrder(
        model_type="goal", store_url=installation.store_url, address=address, digest=address.rsplit("/", 1)[-1],
        keys_folder=str(installation.keys_folder), slowest_prediction_ms=50.0,
    )  # fmt: skip
    return msgspec.structs.replace(given, **fields)


async def test_a_good_candidate_passes_in_a_process_of_its_own(installation: Installation) -> None:
    """A good candidate passes in a process of its own."""
    report = await try_in_child(order(installation, installation.goal(0.8).artifact_uri), timeout_seconds=60)
    assert report.objection is None
    assert report.manifest is not None
    assert report.manifest.model_type == "goal"
    assert report.facts["prediction_ms"] > 0


async def test_a_candidate_that_takes_too_long_is_refused(installation: Installation) -> None:
    """A candidate that hangs while it is loaded is refused in time."""
    report = await try_in_child(order(installation, installation.goal(0.8).artifact_uri), timeout_seconds=0.01)
    assert report.objection is not None
    assert "longer than" in report.objection


async def test_a_child_that_dies_is_an_objection(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that dies is an objection; the deployer lives on."""
    suicide = tmp_path / "python"
    suicide.write_text("#!/bin/sh\ncat > /dev/null\nkill -9 $$\n")
    suicide.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(suicide))
    report = await try_in_child(order(installation, installation.goal(0.8).artifact_uri), timeout_seconds=60)
    assert report.objection == "the trial load died (signal 9)"


async def test_a_cancelled_trial_leaves_no_child_behind(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled trial leaves no child behind."""
    sleeper, marker = tmp_path / "python", tmp_path / "pid"
    sleeper.write_text(f"#!/bin/sh\necho $$ > {marker}\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    task = asyncio.create_task(
        try_in_child(order(installation, installation.goal(0.8).artifact_uri), timeout_seconds=60)
    )
    pid = await eventually(lambda: asyncio.to_thread(_written, marker), what="the child to start")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(pid)


def _written(marker: Path) -> int | None:
    text = marker.read_text().strip() if marker.exists() else ""
    return int(text) if text else None


def test_a_model_of_another_type_is_refused(installation: Installation) -> None:
    """A model of another type is refused."""
    report = tried(order(installation, installation.baseline("segmentation").artifact_uri))
    assert report.objection == "the artifact is a model for segmentation, not for goal"


def test_an_address_that_is_not_the_digest_is_refused(installation: Installation) -> None:
    """An address that does not end in the announced digest is refused."""
    report = tried(order(installation, installation.goal(0.8).artifact_uri, digest="0" * 64))
    assert report.objection is not None
    assert "not the address of digest" in report.objection


def test_a_slow_model_is_refused(installation: Installation) -> None:
    """A slow model is refused."""
    report = tried(order(installation, installation.goal(0.8).artifact_uri, slowest_prediction_ms=1e-9))
    assert report.objection is not None
    assert "one prediction takes" in report.objection


def test_a_graph_that_is_no_graph_is_refused(installation: Installation) -> None:
    """Bytes that onnxruntime cannot read are an objection, not a crash."""
    loaded = open_artifact(goal_artifact(installation.key, 0.8), installation.key.trusted())
    files = build_artifact(
        msgspec.structs.replace(loaded.manifest, files={}), {**loaded.files, MODEL: b"\x00" * 64}, installation.key
    )
    report = tried(
        order(installation, reference_of(installation.store.put("artifacts", files), version="1.0.0").artifact_uri)
    )
    assert report.objection is not None
    assert "cannot be loaded" in report.objection
