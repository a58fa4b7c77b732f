"""``python -m deployer``: one deployer. ``python -m deployer reconcile``: make the database's desired states the newest after a restore."""

from __future__ import annotations

import argparse
import asyncio
import sys

from backends.process import run_to_exit
from deployer.bootstrap import deploy, reconcile
from deployer.settings import DeployerSettings


def main() -> int:
    """Do what the arguments say; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deployer", description=__doc__)
    parser.add_argument("verb", nargs="?", choices=("run", "reconcile"), default="run")
    settings = DeployerSettings()
    if parser.parse_args().verb == "run":
        run_to_exit(deploy(settings))
    sentences = asyncio.run(reconcile(settings))
    sys.stdout.write(
        "\n".join(sentences or ["the topic is not ahead of the database: there is nothing to reconcile"]) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
