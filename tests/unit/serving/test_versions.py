"""Where a replica gets its versions from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from schemas.errors import ArtifactRejectedError
from schemas.vocabulary import ModelType
from serving.versions import VersionLibrary
from tests.four_models import FOUR_MODELS
from tests.versions import Installation, desired, goal_artifact, reference_of

GOAL = "goal"


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Give an installation with keys."""
    installation = Installation(tmp_path)
    assert installation.key is not None
    return installation


@pytest.fixture
def library(installation: Installation) -> VersionLibrary:
    """Give the library of a replica."""
    return VersionLibrary(
        store_url=installation.store_url,
        keys_folder=installation.keys_folder,
        replica_folder=installation.folder / "replica",
    )


def own_copies(installation: Installation) -> set[str]:
    """Return the digests of the replica's own copies."""
    return {path.name for path in (installation.folder / "replica" / "store" / "artifacts").glob("*")}


@pytest.mark.parametrize("model_type", FOUR_MODELS)
def test_every_models_baseline_loads(
    installation: Installation, library: VersionLibrary, model_type: ModelType
) -> None:
    """Every model's baseline loads."""
    assert library.load(model_type, installation.baseline(model_type)).manifest.model_type == model_type


def test_a_version_that_was_loaded_once_loads_without_the_store(
    installation: Installation, library: VersionLibrary
) -> None:
    """A version that was loaded once loads without the store."""
    reference = installation.goal(0.8)
    library.load(GOAL, reference)
    installation.store.delete(reference.artifact_uri)
    assert library.load(GOAL, reference).manifest.model_type == GOAL


def test_a_damaged_own_copy_is_replaced_from_the_store(installation: Installation, library: VersionLibrary) -> None:
    """A damaged copy on the replica's disk is replaced from the store."""
    reference = installation.goal(0.8)
    library.load(GOAL, reference)
    own = installation.folder / "replica" / "store" / reference.artifact_uri / "parameters.json"
    own.write_bytes(b"{}")
    assert library.load(GOAL, reference).manifest.model_type == GOAL
    assert own.read_bytes() != b"{}"


def test_what_is_not_signed_here_is_not_loaded(
    installation: Installation, library: VersionLibrary, tmp_path: Path
) -> None:
    """An artifact that was not signed here is not loaded, even from the store."""
    stranger = Installation(tmp_path / "stranger")
    reference = reference_of(installation.store.put("artifacts", goal_artifact(stranger.key, 0.8)), version="1.0.0")
    with pytest.raises(ArtifactRejectedError, match="unknown key"):
        library.load(GOAL, reference)


def test_an_address_without_the_digest_is_not_loaded(installation: Installation, library: VersionLibrary) -> None:
    """An address that does not end in the decided digest is not loaded."""
    reference = msgspec.structs.replace(installation.goal(0.8), artifact_digest="0" * 64)
    with pytest.raises(ArtifactRejectedError, match="not the address of digest"):
        library.load(GOAL, reference)


def test_a_model_of_another_type_is_not_loaded(installation: Installation, library: VersionLibrary) -> None:
    """A model of another type is not loaded."""
    with pytest.raises(ArtifactRejectedError, match="not for goal"):
        library.load(GOAL, installation.baseline("segmentation"))


def test_only_what_the_kept_states_name_stays_on_the_disk(installation: Installation, library: VersionLibrary) -> None:
    """Only the artifacts that the kept states name stay on the disk."""
    old, middle, new = (installation.goal(rate) for rate in (0.5, 0.6, 0.7))
    library.load(GOAL, old)
    library.remember(desired(1, old))
    library.load(GOAL, middle)
    library.remember(desired(2, middle, previous=old))
    assert own_copies(installation) == {old.artifact_digest, middle.artifact_digest}
    library.load(GOAL, new)
    library.remember(desired(3, new, previous=middle))
    assert own_copies(installation) == {middle.artifact_digest, new.artifact_digest}
    assert [state.sequence for state in library.remembered()] == [3]


def test_a_previous_version_that_cannot_be_kept_does_not_keep_the_state_from_being_kept(
    installation: Installation, library: VersionLibrary
) -> None:
    """A state is kept although its previous version cannot be."""
    gone = reference_of(f"artifacts/{'0' * 64}", version="0.9.0")
    library.remember(desired(3, installation.goal(0.7), previous=gone))
    assert [state.sequence for state in library.remembered()] == [3]


def test_followers_of_all_models_keep_their_artifacts_when_they_load_at_once(
    installation: Installation, library: VersionLibrary
) -> None:
    """Followers that load at once keep each other's artifacts."""
    references = {model_type: installation.baseline(model_type) for model_type in FOUR_MODELS}

    def follow(model_type: ModelType) -> None:
        library.load(model_type, references[model_type])
        library.remember(desired(1, references[model_type], model_type=model_type))

    for model_type in FOUR_MODELS:
        library.load(model_type, references[model_type])
    library.remember(desired(1, references[GOAL]))
    assert own_copies(installation) == {reference.artifact_digest for reference in references.values()}
    with ThreadPoolExecutor() as pool:
        list(pool.map(follow, FOUR_MODELS))
    assert own_copies(installation) == {reference.artifact_digest for reference in references.values()}
    assert {state.model_type for state in library.remembered()} == set(FOUR_MODELS)


def test_a_copy_that_no_state_names_goes_at_the_next_start(installation: Installation, library: VersionLibrary) -> None:
    """A copy that no state names is removed at the next start."""
    library.load(GOAL, installation.goal(0.8))
    assert library.remembered() == []
    assert own_copies(installation) == set()
