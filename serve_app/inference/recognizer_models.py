"""Opens the model cache of a recognizer replica with its first model loaded.

A model's memory is estimated before it is loaded: what stays as long as the model is loaded,
without the working memory of a batch. `HotwordValidator` says whether the model can use a
request's hotwords before any audio is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from serve_app.core.ports import Recognizer
from serve_app.core.records import ALL_HEEDED, HotwordCheck, RecognitionOptions, StageReadiness
from serve_app.engines.paraformer.hotword_tokenizer import HotwordTokenizer, takes_hotwords
from serve_app.engines.paraformer.onnx_pack import decoder_of
from serve_app.inference.batched import BatchedRecognizer
from serve_app.inference.loading import Loaded, find_pack, load_recognizer, with_pack
from serve_app.inference.model_cache import ModelCache
from serve_app.packs import PackContents
from serve_app.scheduling.device_slots import DeviceSlots
from serve_app.scheduling.micro_batcher import BatchLimits
from serve_app.scheduling.preemption import Preemption, ThreadNiceness
from serve_app.settings import RecognizerSettings, Settings

_EQUAL_PRIORITY = ThreadNiceness()


class OpenModelCache:
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
        thread_niceness_of: Callable[[Recognizer], ThreadNiceness] = lambda engine: _EQUAL_PRIORITY,
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
        preemption = Preemption()
        # Of one model nothing else takes turns at the device.
        turns = DeviceSlots(first.engine.max_in_flight) if section.other_packs else None
        self.cache = ModelCache(
            {
                name: model_memory_bytes(section, pack, first.drafter)
                for name, pack in packs.items()
            },
            section.models_bytes,
            load=self._load_other,
            wrap=lambda engine: BatchedRecognizer(
                engine, limits, logger, thread_niceness_of(engine), turns, preemption
            ),
        )
        self.cache.put(first_name, first.engine)
        self.readiness: StageReadiness = first.readiness
        # It is asked about models by the names that callers use, as all of this is.
        named = section.model_copy(update={"pack": first_name})
        self.hotwords = HotwordValidator(settings.model_copy(update={"recognizer": named}), packs)

    def _load_other(self, name: str) -> Recognizer:
        pack = self._settings.recognizer.models[name]
        try:
            return self._load(with_pack(self._settings, pack)).engine
        except Exception:
            # Callers are told that it failed, and not why.
            self._logger.exception("model %s cannot be loaded from pack %s", name, pack)
            raise


_SHARE_OF_FLOAT32 = {"float32": 1.0, "bfloat16": 0.5, "float16": 0.5, "int8": 0.3}
"""Bytes per byte of a checkpoint, by the dtype of the products. What is no matrix product
stays in float32, which is about a twentieth of int8's."""

_WHISPER_FACTOR, _WHISPER_BYTES = 1.3, 200 * 2**20
"""whisper.cpp holds more than its file: a cache of keys and values, and buffers for 30 s.

Source: the table of memory in whisper.cpp's README (v1.8), file and memory from tiny (75 and
273 MB) to large (2,900 and 3,900 MB); the line through it is off by a tenth at most.
"""


def model_memory_bytes(
    recognizer: RecognizerSettings, pack: PackContents, drafter: PackContents | None = None
) -> int:
    """Returns about how many bytes a pack takes once it is loaded.

    Args:
        recognizer: its engine, dtype and device count.
        pack: what is to be loaded.
        drafter: of `hybrid`, which loads one beside each pack.

    Raises:
        PackCorrupt: the engine is `onnx`, and the pack has not been exported for it.
    """
    match recognizer.engine:
        case "onnx":
            return _file_bytes(pack) + decoder_of(pack).stat().st_size
        case "whispercpp":
            return _whisper_bytes(pack)
        case "hybrid" if drafter is not None:
            return _whisper_bytes(drafter) + _paraformer_bytes(recognizer, pack)
        case _:
            return _paraformer_bytes(recognizer, pack)


def _paraformer_bytes(recognizer: RecognizerSettings, pack: PackContents) -> int:
    return round(_file_bytes(pack) * _SHARE_OF_FLOAT32[recognizer.dtype])


def _whisper_bytes(pack: PackContents) -> int:
    return round(_file_bytes(pack) * _WHISPER_FACTOR) + _WHISPER_BYTES


def _file_bytes(pack: PackContents) -> int:
    return pack.weights.stat().st_size


_HOTWORD_ENGINES = ("paraformer", "hybrid")
"""Values of `recognizer.engine` that mind hotwords, given a model that can."""


class HotwordValidator:
    """Says whether a deployment's models have a use for hotwords; loads none of them.

    Args:
        settings: of the whole application.
        packs: that are served, by name.
    """

    def __init__(self, settings: Settings, packs: Mapping[str, PackContents]) -> None:
        self._settings = settings
        self._packs = packs
        self._tokenizers: dict[str, HotwordTokenizer] = {}

    def check(self, recognition_options: RecognitionOptions) -> HotwordCheck:
        """Returns what the model that is hinted at makes of a request's hotwords."""
        name = recognition_options.model or self._settings.recognizer.pack
        if not recognition_options.hotwords or name not in self._packs:
            return ALL_HEEDED  # an unknown model is refused elsewhere
        if (reason := self._reason_ignored(self._packs[name])) is not None:
            return HotwordCheck(no_use=reason)
        if name not in self._tokenizers:
            self._tokenizers[name] = HotwordTokenizer(self._packs[name])
        ids_of = self._tokenizers[name].ids
        words = (hotword.text for hotword in recognition_options.hotwords)
        return HotwordCheck(unwritable=tuple(word for word in words if ids_of(word) is None))

    def _reason_ignored(self, pack: PackContents) -> str | None:
        section = self._settings.recognizer
        if section.engine not in _HOTWORD_ENGINES:
            return f"recognizer.engine {section.engine} takes none"
        if not takes_hotwords(pack):
            return f"model {pack.name} has no bias encoder; choose a SeACo pack"
        return None
