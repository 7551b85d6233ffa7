"""The output fingerprint of a stage: the weights and settings that determine its text.

Two processes with the same fingerprint give the same text for the same audio. Devices, threads
and batch sizes are not part of it: results do not depend on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from serve_app.core.records import Stage
from serve_app.engines.paraformer.onnx_pack import ONNX_CLASS, read_onnx_shape
from serve_app.inference.precision import dtype_of
from serve_app.packs import PackContents
from serve_app.settings import RecognizerSettings, Settings

_ENGINES_WITH_DRAFTS = ("whispercpp", "hybrid")


def weights_checksum(pack: PackContents) -> str:
    """Returns the SHA-256 of a pack's weights, for an ONNX pack of both graphs.

    Raises:
        PackCorrupt: config.yaml of an ONNX pack has no checksum of the decoder.
    """
    if pack.model_class != ONNX_CLASS:
        return pack.checksum
    # The engine refuses a decoder whose checksum differs from the one in config.yaml.
    both = f"{pack.checksum} {read_onnx_shape(pack).decoder_sha256}"
    return hashlib.sha256(both.encode()).hexdigest()


def drafting_of(recognizer: RecognizerSettings) -> dict[str, Mapping[str, object]]:
    """Returns the settings of drafting and refining, by section; {} without drafts."""
    found: dict[str, Mapping[str, object]] = {}
    if recognizer.engine in _ENGINES_WITH_DRAFTS:
        found["whisper"] = recognizer.whisper.model_dump(exclude={"pack", "num_threads"})
    if recognizer.engine == "hybrid":
        found["hybrid"] = recognizer.hybrid.model_dump()
    return found


def output_settings_of(
    settings: Settings, stage: Stage, drafter_checksum: str | None = None
) -> tuple[tuple[str, str], ...]:
    """Returns the settings that determine a stage's text, besides the weights of its pack.

    Args:
        settings: of the service or the job.
        stage: which one.
        drafter_checksum: of the pack of `recognizer.whisper`, for `hybrid`.

    Returns:
        Names of settings, sorted, with their values as JSON; a pack's value is its checksum.
    """
    values: dict[str, object] = {}
    if stage == "punctuation":
        values["punctuator.dtype"] = dtype_of(settings.punctuator)
    if stage == "speakers":
        values["speaker_embedder.dtype"] = dtype_of(settings.speaker_embedder)
    if stage == "asr":
        recognizer = settings.recognizer
        values["recognizer.engine"] = recognizer.engine
        values["recognizer.dtype"] = dtype_of(recognizer)
        for section, fields in drafting_of(recognizer).items():
            values |= {f"recognizer.{section}.{name}": value for name, value in fields.items()}
        if recognizer.engine in _ENGINES_WITH_DRAFTS:
            values["recognizer.languages"] = sorted(recognizer.languages)
        if drafter_checksum is not None:
            values["recognizer.whisper.pack"] = drafter_checksum
    return tuple((name, json.dumps(value)) for name, value in sorted(values.items()))
