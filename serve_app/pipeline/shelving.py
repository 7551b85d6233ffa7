"""From settings to a shelf of recognisers with the first one on it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from serve_app.core.batching import BatchLimits
from serve_app.core.device_turns import DeviceTurns
from serve_app.core.ports import Recognizer
from serve_app.core.stages import StageReadiness
from serve_app.pipeline.batched import BatchedRecognizer
from serve_app.pipeline.hotword_desk import HotwordDesk
from serve_app.pipeline.loading import Loaded, find_pack, load_recognizer, with_pack
from serve_app.pipeline.priority import Priority
from serve_app.pipeline.shelf import ModelShelf
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
        packs = {name: find_pack(settings, name) for name in section.other_packs}
        first = load(settings)
        packs = {section.pack: first.pack, **packs}
        # Of one model nothing else takes turns at the device.
        turns = DeviceTurns(first.engine.max_in_flight) if section.other_packs else None
        self.shelf = ModelShelf(
            {name: pack.weights.stat().st_size for name, pack in packs.items()},
            section.models_bytes,
            load=lambda name: load(with_pack(settings, name)).engine,
            wrap=lambda engine: BatchedRecognizer(
                engine, limits, logger, priority_of(engine), turns
            ),
        )
        self.shelf.put(section.pack, first.engine)
        self.readiness: StageReadiness = first.readiness
        self.hotwords = HotwordDesk(settings, packs)
