"""What a deployer does first: agreement of topic and database, and a version 0 for each model without a version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from backends.telemetry.logs import get_logger
from deployer.baselines import AWAY

if TYPE_CHECKING:
    from deployer.agreement import TopicAgreement
    from deployer.baselines import BaselineDeployment
    from schemas.vocabulary import ModelType

log = get_logger("deployer.settling")
LOOK_AGAIN_SECONDS = 5.0
RETRY_SECONDS = 1.0


class Settling:
    """Ends when topic and database agree and every registered model has a version; waits for a person while the topic is ahead."""

    def __init__(self, agreement: TopicAgreement, baselines: BaselineDeployment) -> None:
        self._agreement = agreement
        self._baselines = baselines
        self._ahead: tuple[ModelType, ...] = ()
        self._is_done = False

    def readiness(self) -> dict[str, bool]:
        """Return the checks of the health endpoint."""
        return {"topic_not_ahead_of_database": not self._ahead, "baselines_deployed": self._is_done}

    def facts(self) -> dict[str, object]:
        """Return what a person wants to know when it is not ready."""
        if not self._ahead:
            return {}
        return {"topic_ahead": list(self._ahead), "next": "python -m deployer reconcile"}

    async def run(self) -> None:
        """Settle; try again while database, broker or store are away."""
        while not self._is_done:
            try:
                self._ahead = await self._agreement.settle()
                if not self._ahead:
                    await self._baselines.ensure()
                    self._is_done = True
                    return
            except AWAY as error:
                log.warning("start_delayed", error=repr(error))
            await asyncio.sleep(LOOK_AGAIN_SECONDS if self._ahead else RETRY_SECONDS)
