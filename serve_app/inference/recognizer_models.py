"""The models of a recognizer replica: the cache, their memory, and validation of hotwords.

Model memory is estimated before a model is loaded. It covers what stays allocated while the model
is loaded, not the working memory of a batch.
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
from serve_app.inference.precision import dtype_of
from serve_app.packs import PackContents
from serve_app.scheduling.device_slots import DeviceSlots
from serve_app.scheduling.micro_batcher import BatchLimits
from serve_app.scheduling.preemption import Preemption, ThreadNiceness
from serve_app.settings import RecognizerSettings, Settings

_EQUAL_PRIORITY = ThreadNiceness()


class RecognizerModels:
    """Opens all packs of the recognizer and loads the default one.

    Args:
        settings: of the whole application.
        limits: of a batch.
        logger: for chunks that fail.
        thread_niceness_of: returns the niceness of an engine's threads.
        load: loads the default pack of the settings that it is given.

    Attributes:
        cache: the models; the default one is loaded.
        readiness: of the default model.
        hotword_validator: for all models.

    Raises:
        PackError: a pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: a model exceeds the budget, or settings contradict each other.
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
        # All packs are opened before the first is loaded: the operator learns now of one that
        # is damaged or too large, not a caller later.
        self._settings, self._load, self._logger = settings, load, logger
        first_name, *other_names = section.models
        others = {name: find_pack(settings, section.models[name]) for name in other_names}
        first = load(settings)
        packs = {first_name: first.pack, **others}
        preemption = Preemption()
        # A single model shares the device with no other.
        device_slots = DeviceSlots(first.engine.max_in_flight) if section.other_packs else None
        self.cache = ModelCache(
            {
                name: model_memory_bytes(section, pack, first.drafter)
                for name, pack in packs.items()
            },
            section.models_bytes,
            load=self._load_other,
            wrap=lambda engine: BatchedRecognizer(
                engine, limits, logger, thread_niceness_of(engine), device_slots, preemption
            ),
        )
        self.cache.put(first_name, first.engine)
        self.readiness: StageReadiness = first.readiness
        # Options name models as callers do, which for a directory is its last part.
        named = section.model_copy(update={"pack": first_name})
        self.hotword_validator = HotwordValidator(
            settings.model_copy(update={"recognizer": named}), packs
        )

    def _load_other(self, name: str) -> Recognizer:
        pack = self._settings.recognizer.models[name]
        try:
            return self._load(with_pack(self._settings, pack)).engine
        except Exception:
            # The caller's error does not include the reason.
            self._logger.exception("model %s cannot be loaded from pack %s", name, pack)
            raise


_SHARE_OF_FLOAT32 = {"float32": 1.0, "bfloat16": 0.5, "float16": 0.5, "int8": 0.3}
"""Bytes per byte of a float32 checkpoint, by dtype. Layers other than matrix products stay in
float32: for int8 they add about 0.05."""

_WHISPER_FACTOR, _WHISPER_BYTES = 1.3, 200 * 2**20
"""whisper.cpp holds more than its file: a key-value cache, and buffers for 30 s.

Source: a line fitted to the memory table in whisper.cpp's README (v1.8), from tiny (75 MB file,
273 MB memory) to large (2,900 and 3,900 MB); the error is at most a tenth.
"""


def model_memory_bytes(
    recognizer: RecognizerSettings, pack: PackContents, drafter: PackContents | None = None
) -> int:
    """Returns the estimated memory of a loaded pack in bytes.

    Args:
        recognizer: gives engine and dtype.
        pack: the pack to load.
        drafter: for `hybrid`, the draft pack that is loaded with each pack.

    Raises:
        PackCorrupt: the engine is `onnx` and the pack is not an exported one.
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
    return round(_file_bytes(pack) * _SHARE_OF_FLOAT32[dtype_of(recognizer)])


def _whisper_bytes(pack: PackContents) -> int:
    return round(_file_bytes(pack) * _WHISPER_FACTOR) + _WHISPER_BYTES


def _file_bytes(pack: PackContents) -> int:
    return pack.weights.stat().st_size


_HOTWORD_ENGINES = ("paraformer", "hybrid")
"""Values of `recognizer.engine` that support hotwords, if the model does."""


class HotwordValidator:
    """Tells which hotwords the models can use, without loading a model.

    Args:
        settings: of the whole application.
        packs: the served packs by name.
    """

    def __init__(self, settings: Settings, packs: Mapping[str, PackContents]) -> None:
        self._settings = settings
        self._packs = packs
        self._tokenizers: dict[str, HotwordTokenizer] = {}

    def validate(self, recognition_options: RecognitionOptions) -> HotwordCheck:
        """Returns which of a request's hotwords its model can use."""
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
