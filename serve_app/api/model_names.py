"""Resolves the model name of a request to a served model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from serve_app.packs.registry import REGISTERED, HubSource

_MAX_LETTERS = 200
_DATED = re.compile(r"(.+)-\d{4}-\d{2}-\d{2}")
# FunASR's own short names, and those of its repositories for Mandarin.
_FUNASR_NAME = re.compile(
    r"paraformer|paraformer-zh|(?:iic|damo|funasr)/(?:\S*paraformer\S*zh\S*)", re.ASCII
)
# Source: FunASR 1.4.16, `funasr/download/name_maps_from_hub.py`.
_FUNASR_PACKS = {"paraformer-zh": "paraformer-large", "paraformer": "paraformer-large-vanilla"}


class ServedNames(Protocol):
    """The names that a deployment accepts."""

    @property
    def models(self) -> tuple[str, ...]: ...

    @property
    def model_aliases(self) -> tuple[str, ...]: ...

    @property
    def serves_paraformer(self) -> bool: ...


def resolve_model(name: str, served: ServedNames) -> str | None:
    """Returns the served model for a name; None if there is none.

    An alias stands for the first model, with a date behind it as well, as OpenAI's have them.
    Where a Paraformer is served, FunASR's names for one stand for the pack that they name, if
    that is served, else for the first model.
    """
    if name in served.models:
        return name
    if len(name) > _MAX_LETTERS:
        return None
    first = served.models[0]
    dated = _DATED.fullmatch(name)
    if name in served.model_aliases or (dated and dated.group(1) in served.model_aliases):
        return first
    if served.serves_paraformer and _FUNASR_NAME.fullmatch(name):
        pack = _FUNASR_PACKS.get(name) or _pack_of_repository(name)
        return pack if pack in served.models else first
    return None


def _pack_of_repository(repository: str) -> str | None:
    # The organization's former name is damo.
    names = {repository, repository.replace("damo/", "iic/", 1)}
    for name, sources in _hub_sources().items():
        if any(source.repository in names for source in sources):
            return name
    return None


def _hub_sources() -> Mapping[str, Iterable[HubSource]]:
    return {
        name: [source for source in reference.sources if isinstance(source, HubSource)]
        for name, reference in REGISTERED.items()
    }
