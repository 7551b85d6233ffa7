"""What a recogniser's model takes of memory, estimated before it is loaded.

Counted is what stays for as long as the model is loaded, not what a batch needs on top.
"""

from __future__ import annotations

from serve_app.engines.paraformer.onnx_pack import decoder_of
from serve_app.packs import PackContents
from serve_app.settings import RecognizerSettings

_SHARE_OF_FLOAT32 = {"float32": 1.0, "bfloat16": 0.5, "float16": 0.5, "int8": 0.3}
"""Bytes per byte of a checkpoint, by the dtype of the products. What is no matrix product
stays in float32, which is about a twentieth of int8's."""

_WHISPER_FACTOR, _WHISPER_BYTES = 1.3, 200 * 2**20
"""whisper.cpp holds more than its file: a cache of keys and values, and buffers for 30 s.

Source: the table of memory in whisper.cpp's README (v1.8), file and memory from tiny (75 and
273 MB) to large (2,900 and 3,900 MB); the line through it is off by a tenth at most.
"""


def held_bytes(
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
