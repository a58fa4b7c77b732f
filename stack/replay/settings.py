"""The settings of replays, from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import SettingsError

# A sibling of the checkout: rows of the sets never go into the project.
DEFAULT_DATA_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


class ReplaySettings(BaseSettings):
    """The folder of the data sets that do not come from the package index."""

    model_config = SettingsConfigDict(env_prefix="FINCOACH_", env_ignore_empty=True, frozen=True, extra="ignore")

    data: Path = Field(
        default_factory=lambda: DEFAULT_DATA_FOLDER,
        description="Folder of data sets, one folder per set; `--data DIR` overrides it.",
    )

    def data_file(self, name: str) -> Path:
        """Return the path of the file ``name`` (``set/file``) in the data folder.

        Raises:
            SettingsError: the file does not exist.
        """
        path = self.data / name
        if not path.is_file():
            raise SettingsError(
                f"{path} is not there: name a folder that holds {name} with --data DIR or FINCOACH_DATA; "
                "`cdnow` needs no folder, and --jsonl FILE replays your own events"
            )
        return path
