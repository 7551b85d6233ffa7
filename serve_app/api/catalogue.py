"""What `/v1/models` says of each model, as OpenAI's model object and a little more."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from serve_app.api.service import TranscriptionService
from serve_app.core.errors import InvalidParameter
from serve_app.core.hints import Hints, Hotword
from serve_app.core.origin import Origin

_PATIENCE_S = 2.0
# Every model that writes Mandarin has it.
_PROBE = Hotword("的")


class ModelCatalogue:
    """Describes the models that a service offers.

    Beside OpenAI's fields there are `root`, the pack that a name stands for, and
    `hotwords`, whether it takes them, which is left out while nobody can say.

    Args:
        service: is asked once for each pack, as a sleeping recogniser wakes from it.
    """

    def __init__(self, service: TranscriptionService) -> None:
        self._service = service
        self._takes_hotwords: dict[str, bool] = {}

    async def models(self) -> list[dict[str, Any]]:
        """Returns all names, the first one the default."""
        offer = self._service.offer
        return [await self.model(name) for name in (*offer.models, *offer.model_aliases)]

    async def model(self, name: str) -> dict[str, Any]:
        """Returns one that is offered."""
        offer = self._service.offer
        root = name if name in offer.models else offer.model
        described: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "paraserve",
            "root": root,
        }
        if root not in self._takes_hotwords:
            await self._ask(root)
        if root in self._takes_hotwords:
            described["hotwords"] = self._takes_hotwords[root]
        return described

    async def _ask(self, model: str) -> None:
        origin = Origin(f"models-{model}", deadline=time.time() + _PATIENCE_S)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._service.check_hotwords(Hints(model, (_PROBE,)), origin)
        except InvalidParameter:
            self._takes_hotwords[model] = False
        except Exception:
            # The names can be told while the recogniser cannot be asked.
            return
        else:
            self._takes_hotwords[model] = True
