"""The dtype that a stage computes in, where the settings leave the choice to the machine."""

from __future__ import annotations

from serve_app.engines.cpu_features import multiplies_bfloat16
from serve_app.settings import PunctuatorSettings, RecognizerSettings, SpeakerEmbedderSettings


def dtype_of(
    section: RecognizerSettings | PunctuatorSettings | SpeakerEmbedderSettings,
) -> str:
    """Returns the configured dtype; for `auto` the one that this machine computes in.

    `auto` is bfloat16 on GPUs and on processors that multiply it themselves, else float32; the
    speaker model computes in float32 on GPUs.
    """
    if section.dtype != "auto":
        return section.dtype
    if isinstance(section, RecognizerSettings) and section.engine in ("onnx", "whispercpp"):
        return "float32"  # nothing to choose: the pack determines it
    if isinstance(section, SpeakerEmbedderSettings) and section.device != "cpu":
        return "float32"
    return "bfloat16" if section.device != "cpu" or multiplies_bfloat16() else "float32"
