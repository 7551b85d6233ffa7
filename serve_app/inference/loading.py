"""From settings to packs that are present and engines that are loaded and warm.

Modules that need PyTorch are imported where they are used; see `inference.engines`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from serve_app.audio import AudioLimits
from serve_app.core.ports import Punctuator, Recognizer, VoiceActivityDetector
from serve_app.core.records import PackRole, Stage, StageReadiness
from serve_app.engines.fsmn_vad.endpointing import VadOptions
from serve_app.inference.engines import memory_fraction, open_recognizer
from serve_app.inference.fingerprint import output_settings_of, weights_checksum
from serve_app.packs import PackContents, PackStore, pull, resolve
from serve_app.settings import Settings
from serve_app.transcript.segmentation import SegmentationOptions

EngineT = TypeVar("EngineT")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[EngineT]):
    """An engine that is warm, and what to tell of it.

    Attributes:
        engine: loaded and warm.
        readiness: what it is.
        pack: that it was loaded from.
        drafter: the further pack of `hybrid`, None for other engines.
    """

    engine: EngineT
    readiness: StageReadiness
    pack: PackContents
    drafter: PackContents | None = None


@dataclass(frozen=True, slots=True)
class NeededPack:
    """A pack that settings need, and what for."""

    role: PackRole
    name: str


def packs_of(settings: Settings) -> tuple[NeededPack, ...]:
    """Returns every pack that is needed: those of the stages in their order, the recognizer's
    first pack before its others, and last the drafter of `hybrid`."""
    recognizer = settings.recognizer
    names: dict[Stage, tuple[str, ...]] = {
        "vad": (settings.vad.pack,),
        "asr": recognizer.packs,
        "punctuation": (settings.punctuator.pack,),
    }
    needed = [NeededPack(stage, name) for stage in settings.stages for name in names[stage]]
    if recognizer.engine == "hybrid":
        needed.append(NeededPack("draft", recognizer.whisper.pack))
    return tuple(needed)


def find_pack(settings: Settings, name: str) -> PackContents:
    """Returns a pack, fetched if the settings allow it.

    Raises:
        PackError: it is not there, damaged, or cannot be fetched.
    """
    return resolve(name, PackStore(settings.pack_dir), fetch=not settings.offline)


def segmentation_options(settings: Settings) -> SegmentationOptions:
    audio = settings.audio
    return SegmentationOptions(
        limits=AudioLimits(
            max_duration_s=audio.max_duration_s,
            min_duration_s=audio.min_duration_s,
            block_s=audio.decode_block_s,
        ),
        max_segment_s=settings.segmenter.max_segment_s,
        max_group_s=settings.segmenter.max_group_s,
        gather_s=settings.segmenter.gather_s,
    )


def load_vad(settings: Settings) -> Loaded[VoiceActivityDetector]:
    """Loads the VAD; it computes on the CPU.

    Raises:
        PackError: the pack cannot be used.
    """
    from serve_app.engines.devices import limit_threads
    from serve_app.engines.fsmn_vad.engine import FsmnVad

    limit_threads(settings.segmenter.num_threads)
    pack = find_pack(settings, settings.vad.pack)
    published = VadOptions.from_config(pack.config.get("model_conf") or {})
    options = replace(published, max_end_silence_ms=settings.vad.max_end_silence_ms)
    engine = FsmnVad(pack, options)
    return Loaded(engine, _readiness(settings, "vad", "cpu", pack), pack)


def load_recognizer(settings: Settings) -> Loaded[Recognizer]:
    """Loads the recognizer.

    Raises:
        PackError: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the dtype does not go with the device, or the model with the dtype.
    """
    section = settings.recognizer
    pack = find_pack(settings, section.pack)
    drafter = find_pack(settings, section.whisper.pack) if section.engine == "hybrid" else None
    engine = open_recognizer(settings, pack, drafter)
    readiness = _readiness(settings, "asr", section.device, pack, drafter)
    return Loaded(engine, readiness, pack, drafter)


def with_pack(settings: Settings, name: str) -> Settings:
    """Returns the settings with another pack for the recognizer, and no others beside it."""
    recognizer = settings.recognizer.model_copy(update={"pack": name, "other_packs": ()})
    return settings.model_copy(update={"recognizer": recognizer})


def load_punctuator(settings: Settings) -> Loaded[Punctuator]:
    """Loads the punctuation model.

    Raises:
        PackError: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
    """
    from serve_app.engines.devices import limit_threads

    section = settings.punctuator
    limit_threads(section.num_threads)
    pack = find_pack(settings, section.pack)
    if section.device != "cpu":
        from serve_app.engines.cuda.ct_transformer import GpuCtTransformer
        from serve_app.engines.cuda.options import GpuOptions

        on_gpu = GpuCtTransformer(
            pack,
            GpuOptions(
                device=section.device,
                dtype=section.dtype,
                max_batch_rows=section.max_batch_words,
                memory_fraction=memory_fraction(section.deployment.num_gpus),
                warm_up_s=section.warm_up_s,
                max_graphs=section.max_graphs,
            ),
        )
        _LOG.info("punctuation on %s: %s", section.device, on_gpu.warm_up)
        return Loaded(on_gpu, _readiness(settings, "punctuation", section.device, pack), pack)
    from serve_app.engines.ct_transformer import CtTransformerEngine

    engine = CtTransformerEngine(pack, device=section.device)
    return Loaded(engine, _readiness(settings, "punctuation", section.device, pack), pack)


def _readiness(
    settings: Settings,
    stage: Stage,
    device: str,
    pack: PackContents,
    drafter: PackContents | None = None,
) -> StageReadiness:
    output_settings = output_settings_of(settings, stage, drafter.checksum if drafter else None)
    return StageReadiness(stage, device, pack.name, weights_checksum(pack), output_settings)


def fetch_packs(settings: Settings, on_progress: Callable[[str], None]) -> None:
    """Makes sure that every pack of the settings is on this machine.

    Raises:
        PackError: one is not, and cannot be fetched.
    """
    for needed in packs_of(settings):
        on_progress(f"model pack for {needed.role}: {needed.name}")
        if settings.offline:
            find_pack(settings, needed.name)
        else:
            pull(needed.name, PackStore(settings.pack_dir))
