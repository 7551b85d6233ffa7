"""Finds, fetches and loads the packs that the settings name.

Modules that import PyTorch are imported inside functions, as in `inference.engines`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from serve_app.audio import AudioLimits
from serve_app.core.errors import PackNotFound
from serve_app.core.ports import (
    Punctuator,
    Recognizer,
    SpeakerEmbedder,
    VoiceActivityDetector,
)
from serve_app.core.records import PackRole, Stage, StageReadiness
from serve_app.engines.fsmn_vad.endpointing import VadOptions
from serve_app.engines.paraformer.onnx_pack import read_onnx_shape
from serve_app.inference.engines import memory_fraction, open_recognizer
from serve_app.inference.fingerprint import output_settings_of, weights_checksum
from serve_app.inference.precision import dtype_of
from serve_app.packs import PackContents, PackStore, pull, resolve
from serve_app.settings import Settings
from serve_app.transcript.segmentation import SegmentationOptions

EngineT = TypeVar("EngineT")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[EngineT]):
    """A loaded engine and its description.

    Attributes:
        engine: loaded and warm.
        readiness: device, pack and fingerprint.
        pack: the pack that it was loaded from.
        drafter: the draft pack of `hybrid`; None for other engines.
    """

    engine: EngineT
    readiness: StageReadiness
    pack: PackContents
    drafter: PackContents | None = None


@dataclass(frozen=True, slots=True)
class NeededPack:
    """A pack that the settings need, and its role."""

    role: PackRole
    name: str


def packs_of(settings: Settings) -> tuple[NeededPack, ...]:
    """Returns every pack that the settings need.

    They come in the order of the stages, the recognizer's default pack before its other packs,
    and the drafter of `hybrid` last.
    """
    recognizer = settings.recognizer
    names: dict[Stage, tuple[str, ...]] = {
        "vad": (settings.vad.pack,),
        "asr": recognizer.packs,
        "punctuation": (settings.punctuator.pack,),
        "speakers": (settings.speaker_embedder.pack,),
    }
    needed = [NeededPack(stage, name) for stage in settings.stages for name in names[stage]]
    if recognizer.engine == "hybrid":
        needed.append(NeededPack("draft", recognizer.whisper.pack))
    return tuple(needed)


def find_pack(settings: Settings, name: str) -> PackContents:
    """Returns a pack, and downloads it first where the settings allow that.

    Raises:
        PackError: it is missing or damaged, or the download failed.
    """
    try:
        return resolve(name, PackStore(settings.pack_dir), fetch=not settings.offline)
    except PackNotFound as error:
        if settings.recognizer.engine == "onnx" and name in settings.recognizer.packs:
            directory = name.removeprefix("dir:")
            command = f"paraserve models export paraformer-large {directory}"
            pack, problem = error.args[:2]
            raise PackNotFound(pack, problem, f"Make it by `{command}`") from None
        raise


def segmentation_options(settings: Settings) -> SegmentationOptions:
    audio = settings.audio
    limits = audio.options_for(AudioLimits, block_s=audio.decode_block_s)
    return settings.segmenter.options_for(SegmentationOptions, limits=limits)


def load_vad(settings: Settings, block_frames: int | None = None) -> Loaded[VoiceActivityDetector]:
    """Loads the VAD, which always runs on the CPU.

    Args:
        settings: of the whole application.
        block_frames: of 10 ms that are decided together; None for what is fastest for files.

    Raises:
        PackError: the pack cannot be used.
    """
    from serve_app.engines.devices import limit_threads
    from serve_app.engines.fsmn_vad.engine import FsmnVad
    from serve_app.engines.fsmn_vad.network import BLOCK_FRAMES

    limit_threads(settings.segmenter.num_threads)
    pack = find_pack(settings, settings.vad.pack)
    published = VadOptions.from_config(pack.config.get("model_conf") or {})
    options = replace(published, max_end_silence_ms=settings.vad.max_end_silence_ms)
    engine = FsmnVad(pack, options, block_frames or BLOCK_FRAMES)
    return Loaded(engine, _readiness(settings, "vad", "cpu", pack), pack)


def load_recognizer(settings: Settings) -> Loaded[Recognizer]:
    """Loads the recognizer.

    Raises:
        PackError: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the device does not support the dtype, or the model overflows it.
    """
    section = settings.recognizer
    pack = find_pack(settings, section.pack)
    drafter = find_pack(settings, section.whisper.pack) if section.engine == "hybrid" else None
    engine = open_recognizer(settings, pack, drafter)
    readiness = _readiness(settings, "asr", section.device, pack, drafter)
    return Loaded(engine, readiness, pack, drafter)


def with_pack(settings: Settings, name: str) -> Settings:
    """Returns the settings with this pack as the recognizer's only one."""
    recognizer = settings.recognizer.model_copy(update={"pack": name, "other_packs": ()})
    return settings.model_copy(update={"recognizer": recognizer})


def load_punctuator(settings: Settings) -> Loaded[Punctuator]:
    """Loads the punctuation model.

    Raises:
        PackError: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the device does not support the dtype, or the model overflows it.
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
            section.options_for(
                GpuOptions,
                dtype=dtype_of(section),
                max_batch_rows=section.max_batch_words,
                memory_fraction=memory_fraction(section.deployment.num_gpus),
            ),
        )
        _LOG.info("punctuation on %s: %s", section.device, on_gpu.warm_up)
        return Loaded(on_gpu, _readiness(settings, "punctuation", section.device, pack), pack)
    from serve_app.engines.ct_transformer import CtTransformerEngine

    engine = CtTransformerEngine(pack, dtype=dtype_of(section))
    return Loaded(engine, _readiness(settings, "punctuation", section.device, pack), pack)


def load_speaker_embedder(settings: Settings) -> Loaded[SpeakerEmbedder]:
    """Loads the speaker model.

    Raises:
        PackError: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the CPU does not support the dtype.
    """
    from serve_app.engines.campplus import CampplusEngine
    from serve_app.engines.devices import limit_threads

    section = settings.speaker_embedder
    limit_threads(section.num_threads)
    pack = find_pack(settings, section.pack)
    engine = CampplusEngine(pack, section.device, dtype_of(section))
    return Loaded(engine, _readiness(settings, "speakers", section.device, pack), pack)


def _readiness(
    settings: Settings,
    stage: Stage,
    device: str,
    pack: PackContents,
    drafter: PackContents | None = None,
) -> StageReadiness:
    output_settings = output_settings_of(settings, stage, drafter.checksum if drafter else None)
    checksum = weights_checksum(pack)
    dtype = _dtype_of_stage(settings, stage, pack)
    return StageReadiness(stage, device, pack.name, checksum, output_settings, dtype)


def _dtype_of_stage(settings: Settings, stage: Stage, pack: PackContents) -> str | None:
    if stage == "vad":
        return "float32"
    if stage == "punctuation":
        return dtype_of(settings.punctuator)
    if stage == "speakers":
        return dtype_of(settings.speaker_embedder)
    match settings.recognizer.engine:
        case "onnx":
            return read_onnx_shape(pack).dtype
        case "whispercpp":
            return None
        case _:
            return dtype_of(settings.recognizer)


def fetch_packs(settings: Settings, on_progress: Callable[[str], None]) -> None:
    """Makes every pack of the settings available on this machine.

    Raises:
        PackError: one is missing and cannot be downloaded.
    """
    for needed in packs_of(settings):
        on_progress(f"model pack for {needed.role}: {needed.name}")
        if settings.offline:
            find_pack(settings, needed.name)
        else:
            pull(needed.name, PackStore(settings.pack_dir))
