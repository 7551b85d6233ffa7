"""Opens the engine that `recognizer.engine` names, with options from the settings.

Engines on PyTorch and onnxruntime are imported inside functions: a replica of `onnx` never imports
PyTorch, which would take more time and memory than everything else in it except the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from serve_app.core.errors import ConfigurationError
from serve_app.core.ports import Recognizer
from serve_app.engines.hybrid import HybridOptions, HybridRecognizer
from serve_app.engines.whisper.engine import WhisperCppEngine, WhisperOptions
from serve_app.inference.precision import dtype_of
from serve_app.packs import PackContents
from serve_app.settings import Settings

Opener = Callable[[Settings, PackContents], Recognizer]

_LOG = logging.getLogger(__name__)


def open_recognizer(
    settings: Settings, pack: PackContents, drafter: PackContents | None = None
) -> Recognizer:
    """Returns the engine that `recognizer.engine` names, loaded and warm.

    Args:
        settings: of the whole application.
        pack: the recognizer's.
        drafter: the pack of `recognizer.whisper`, for `hybrid` only.

    Raises:
        PackError: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the engine is not in this build, the device does not support the
            dtype, or the model overflows it.
    """
    name = settings.recognizer.engine
    if name == "hybrid" and drafter is not None:
        return _open_hybrid(settings, pack, drafter)
    if name not in _OPENERS:
        raise ConfigurationError(
            f"recognizer.engine {name} is not in this build; use {' or '.join(_OPENERS)}, "
            "or hybrid with a drafter"
        )
    return _OPENERS[name](settings, pack)


def _open_paraformer(settings: Settings, pack: PackContents) -> Recognizer:
    section = settings.recognizer
    if section.device == "cpu":
        from serve_app.engines.paraformer.cpu import ParaformerEngine, ParaformerOptions

        return ParaformerEngine(
            pack, section.options_for(ParaformerOptions, dtype=dtype_of(section))
        )
    from serve_app.engines.cuda.options import GpuOptions
    from serve_app.engines.cuda.paraformer import GpuParaformer
    from serve_app.engines.devices import limit_threads

    limit_threads(section.num_threads)
    on_gpu = GpuParaformer(
        pack,
        section.options_for(
            GpuOptions,
            dtype=dtype_of(section),
            max_batch_rows=section.max_batch_frames,
            memory_fraction=memory_fraction(section.deployment.num_gpus),
        ),
    )
    _LOG.info("recognizer on %s: %s", section.device, on_gpu.warm_up)
    return on_gpu


def _open_onnx(settings: Settings, pack: PackContents) -> Recognizer:
    # Optional: onnxruntime is in the extra `onnx`.
    try:
        from serve_app.engines.paraformer.onnx import OnnxOptions, ParaformerOnnxEngine
    except ImportError as error:
        raise ConfigurationError(
            f"recognizer.engine onnx: {error}; pip install 'paraserve[onnx]'"
        ) from error
    section = settings.recognizer
    if section.device != "cpu":
        raise ConfigurationError(f"recognizer.engine onnx runs on the cpu, not on {section.device}")
    engine = ParaformerOnnxEngine(pack, section.options_for(OnnxOptions))
    # float32 is the default and requires nothing: the export has determined the dtype.
    if section.dtype not in ("auto", "float32", engine.describe().dtype):
        raise ConfigurationError(
            f"recognizer.dtype is {section.dtype}, but {pack.name} is in {engine.describe().dtype}"
        )
    return engine


def _open_whisper(settings: Settings, pack: PackContents) -> Recognizer:
    if settings.recognizer.device != "cpu":
        raise ConfigurationError(
            "recognizer.engine whispercpp computes on the CPU; set recognizer.device to cpu"
        )
    return WhisperCppEngine(pack, whisper_options(settings))


def _open_hybrid(settings: Settings, pack: PackContents, drafter: PackContents) -> Recognizer:
    return HybridRecognizer(
        WhisperCppEngine(drafter, whisper_options(settings)),
        _open_paraformer(settings, pack),
        (drafter.name, pack.name),
        settings.recognizer.hybrid.options_for(HybridOptions),
    )


def whisper_options(settings: Settings) -> WhisperOptions:
    recognizer = settings.recognizer
    return recognizer.whisper.options_for(WhisperOptions, languages=recognizer.languages)


def memory_fraction(num_gpus: float) -> float | None:
    """Returns a replica's share of the memory of its GPU: that of the GPU itself."""
    return min(num_gpus, 1.0) if num_gpus > 0 else None


_OPENERS: dict[str, Opener] = {
    "paraformer": _open_paraformer,
    "onnx": _open_onnx,
    "whispercpp": _open_whisper,
}
