"""What the environment says about replays: the only place of this room that reads it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import SettingsError

# Beside a checkout, as a sibling: rows of the sets never go into the project.
DEFAULT_DATA_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


class ReplaySettings(BaseSettings):
    """Where the data sets are that do not come with the package index."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", env_ignore_empty=True, frozen=True, extra="ignore")

    data: Path = Field(
        default=DEFAULT_DATA_FOLDER, description="Folder of data sets, one folder a set; `--data DIR` goes before it."
    )

    def data_file(self, name: str) -> Path:
        """Return the file ``name`` (``set/file``) of the data folder.

        Raises:
            SettingsError: it is not there.
        """
        path = self.data / name
        if not path.is_file():
            raise SettingsError(
                f"{path} is not there: name a folder that holds {name} with --data DIR or FINCOACH_DATA; "
                "`cdnow` and `openbandit` need no folder, and --jsonl FILE replays events of your own"
            )
        return path
