"""The responses of `/v1/models`, and what a deployment offers according to its settings."""

from __future__ import annotations

import asyncio
import time

from serve_app.api.model_names import resolve_model
from serve_app.api.parameters import Offer
from serve_app.api.response_models import ModelDescription
from serve_app.api.service import TranscriptionService
from serve_app.core.languages import GUESSED
from serve_app.core.records import Hotword, RecognitionOptions, RequestContext
from serve_app.packs.registry import demo_warning, is_demo_pack
from serve_app.settings import Settings

_PATIENCE_S = 2.0
# In the vocabulary of every Mandarin model.
_PROBE = Hotword("的")


class ServedModels:
    """Describes the models that a service offers.

    In addition to OpenAI's fields there are `root`, the pack that a name refers to, `demo`,
    whether it is a built-in demo pack (with `warning`), `hotwords`, whether it supports them,
    which is omitted while unknown, `speaker_labels` and `languages`. `created` is the time at which
    this process started to serve it.

    Args:
        service: called once for each pack, since each call wakes a recognizer that has scaled
            to zero.
    """

    def __init__(self, service: TranscriptionService) -> None:
        self._service = service
        self._takes_hotwords: dict[str, bool] = {}
        self._created_unix_s = int(time.time())

    async def models(self) -> list[ModelDescription]:
        """Returns all names, the first one the default."""
        offer = self._service.offer
        return [await self.model(name) for name in (*offer.models, *offer.model_aliases)]

    async def model(self, name: str) -> ModelDescription:
        """Returns a model that is offered."""
        offer = self._service.offer
        root = resolve_model(name, offer) or offer.model
        described: ModelDescription = {
            "id": name,
            "object": "model",
            "created": self._created_unix_s,
            "owned_by": "paraserve",
            "root": root,
            "demo": is_demo_pack(root),
            "speaker_labels": "speakers" in offer.stages,
            "languages": [*offer.languages, *((GUESSED,) if offer.guesses_language else ())],
        }
        if is_demo_pack(root):
            described["warning"] = demo_warning(root)
        if root not in self._takes_hotwords:
            await self._ask(root)
        if root in self._takes_hotwords:
            described["hotwords"] = self._takes_hotwords[root]
        return described

    async def _ask(self, model: str) -> None:
        context = RequestContext(f"models-{model}", deadline=time.time() + _PATIENCE_S)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                check = await self._service.check_hotwords(
                    RecognitionOptions(model, (_PROBE,)), context
                )
        except Exception:
            # The names are known even if the recognizer does not answer.
            return
        self._takes_hotwords[model] = check.no_use is None


def offer_of(settings: Settings) -> Offer:
    """Returns what a deployment with these settings can do for a request.

    Raises:
        ConfigurationError: the file of replacements cannot be used.
    """
    section = settings.recognizer
    first, *others = section.models
    return Offer(
        model=first,
        model_aliases=settings.ingress.model_aliases,
        languages=section.languages,
        stages=settings.stages,
        default_language=section.default_language,
        other_models=tuple(others),
        takes_keywords=section.engine == "hybrid",
        guesses_language=section.engine in ("whispercpp", "hybrid"),
        serves_paraformer=section.engine != "whispercpp",
        unknown_fields=settings.http.unknown_fields,
        unwritable_hotwords=section.unwritable_hotwords,
        subtitles=settings.subtitles,
        replacements=settings.text.all_replacements(),
    )
