"""Which artifacts may go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployer.retention import StoredVersion, expendable
from schemas.vocabulary import ArtifactKind, SemanticVersion

STORED = st.builds(
    StoredVersion,
    st.builds(SemanticVersion, st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(ArtifactKind),
    st.integers(0, 40).map(lambda number: f"artifacts/{number}"),
    st.booleans(),
)


@given(st.lists(STORED, max_size=40), st.integers(1, 8))
def test_what_is_needed_is_never_expendable(versions: list[StoredVersion], kept: int) -> None:
    """Active, previous, baseline and recent versions are never expendable."""
    leaving = set(expendable(versions, kept=kept))
    newest = sorted((item for item in versions if item.kind == ArtifactKind.LEARNED), reverse=True)[:kept]
    needed = {item.address for item in versions if item.in_use or item.kind == ArtifactKind.BASELINE}
    assert not leaving & (needed | {item.address for item in newest})


@given(st.integers(0, 30), st.integers(1, 8))
def test_the_store_does_not_grow_without_end(count: int, kept: int) -> None:
    """Old learned versions are expendable, so that the store stays bounded."""
    versions = [
        StoredVersion(SemanticVersion(1, number, 0), ArtifactKind.LEARNED, f"artifacts/{number}", in_use=False)
        for number in range(count)
    ]
    assert len(expendable(versions, kept=kept)) == max(0, count - kept)
