"""Whether a request's hotwords can be minded, before any audio is looked at."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.core.hints import ALL_HEEDED, Hints, HotwordCheck
from serve_app.engines.paraformer.hotword_tokenizer import Speller, takes_hotwords
from serve_app.packs import PackContents
from serve_app.settings import Settings

_ENGINES = ("paraformer", "hybrid")
"""Values of `recognizer.engine` that mind hotwords, given a model that can."""


class HotwordDesk:
    """Says whether a deployment's models have a use for hotwords; loads none of them.

    Args:
        settings: of the whole application.
        packs: that are served, by name.
    """

    def __init__(self, settings: Settings, packs: Mapping[str, PackContents]) -> None:
        self._settings = settings
        self._packs = packs
        self._spellers: dict[str, Speller] = {}

    def check(self, hints: Hints) -> HotwordCheck:
        """Returns what the model that is hinted at makes of a request's hotwords."""
        name = hints.model or self._settings.recognizer.pack
        if not hints.hotwords or name not in self._packs:
            return ALL_HEEDED  # an unknown model is refused elsewhere
        if (reason := self._no_use(self._packs[name])) is not None:
            return HotwordCheck(no_use=reason)
        if name not in self._spellers:
            self._spellers[name] = Speller(self._packs[name])
        spell = self._spellers[name].ids
        words = (hotword.text for hotword in hints.hotwords)
        return HotwordCheck(unwritable=tuple(word for word in words if spell(word) is None))

    def _no_use(self, pack: PackContents) -> str | None:
        section = self._settings.recognizer
        if section.engine not in _ENGINES:
            return f"recognizer.engine {section.engine} takes none"
        if not takes_hotwords(pack):
            return f"model {pack.name} has no bias encoder; choose a SeACo pack"
        return None
