"""From settings to a shelf of recognisers with the first one on it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from serve_app.core.ports import Recognizer
from serve_app.core.stages import StageReadiness
from serve_app.inference.batched import BatchedRecognizer
from serve_app.inference.footprint import held_bytes
from serve_app.inference.hotword_desk import HotwordDesk
from serve_app.inference.loading import Loaded, find_pack, load_recognizer, with_pack
from serve_app.inference.model_cache import ModelShelf
from serve_app.scheduling.device_slots import DeviceTurns
from serve_app.scheduling.micro_batcher import BatchLimits
from serve_app.scheduling.preemption import RightOfWay
from serve_app.scheduling.priority import Priority
from serve_app.settings import Settings

_ALL_ALIKE = Priority()


class OpenShelf:
    """A shelf, and what to tell of it.

    Args:
        settings: of the whole application.
        limits: of a batch.
        logger: told of chunks that fail.
        priority_of: says what is urgent to an engine.
        load: loads the first pack of the settings that it is given.

    Raises:
        PackError: a pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: a pack has no room, or settings contradict each other.
    """

    def __init__(
        self,
        settings: Settings,
        limits: BatchLimits,
        logger: logging.Logger,
        priority_of: Callable[[Recognizer], Priority] = lambda engine: _ALL_ALIKE,
        load: Callable[[Settings], Loaded[Recognizer]] = load_recognizer,
    ) -> None:
        section = settings.recognizer
        # All packs are opened before the first is loaded: one that is damaged, or has no
        # room, is the operator's to hear of now, not of a caller's later.
        self._settings, self._load, self._logger = settings, load, logger
        first_name, *other_names = section.models
        others = {name: find_pack(settings, section.models[name]) for name in other_names}
        first = load(settings)
        packs = {first_name: first.pack, **others}
        right_of_way = RightOfWay()
        # Of one model nothing else takes turns at the device.
        turns = DeviceTurns(first.engine.max_in_flight) if section.other_packs else None
        self.shelf = ModelShelf(
            {name: held_bytes(section, pack, first.drafter) for name, pack in packs.items()},
            section.models_bytes,
            load=self._load_other,
            wrap=lambda engine: BatchedRecognizer(
                engine, limits, logger, priority_of(engine), turns, right_of_way
            ),
        )
        self.shelf.put(first_name, first.engine)
        self.readiness: StageReadiness = first.readiness
        # It is asked about models by the names that callers use, as all of this is.
        named = section.model_copy(update={"pack": first_name})
        self.hotwords = HotwordDesk(settings.model_copy(update={"recognizer": named}), packs)

    def _load_other(self, name: str) -> Recognizer:
        pack = self._settings.recognizer.models[name]
        try:
            return self._load(with_pack(self._settings, pack)).engine
        except Exception:
            # Callers are told that it failed, and not why.
            self._logger.exception("model %s cannot be loaded from pack %s", name, pack)
            raise
