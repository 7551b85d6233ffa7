"""The names that Paraserve knows, and the grammar of those it does not.

Source: the ids and their Hugging Face twins are those of FunASR 1.4.16
(`funasr/download/name_maps_from_hub.py`) and of its model zoo. FunASR maps both
`paraformer` and `paraformer-zh` to `funasr/paraformer-zh` on Hugging Face, but
the repository's configuration.json and the size of its weights say that it
holds the model without hot words, so it is the twin of that one alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from serve_app.core.errors import PackNotFound
from serve_app.packs.pins import FSMN_VAD_WHEEL
from serve_app.packs.references import (
    BuiltinSource,
    DirectorySource,
    Hub,
    HubSource,
    PackKind,
    PackReference,
    WheelSource,
)

_FUNASR_LICENCE = "FunASR Model License"
_OWN_LICENCE = "as Paraserve"
_WHISPER_LICENCE = "MIT"

# A commit names the bytes themselves; ModelScope's tags can be moved, so there the
# checksums recorded at the first pull are what holds.
_PARAFORMER_ZH_COMMIT = "7904416f6cb6290ee7dc0b2ddb2993a9fe4f421a"
_CT_PUNC_COMMIT = "4f7d8f972524d584770717a758cc8af2c8c6984c"


def _whisper(name: str, size_bytes: int) -> PackReference:
    """One of the files of whisper.cpp's own repository, named as there."""
    source = HubSource(Hub.HUGGING_FACE, "ggerganov/whisper.cpp", files=(f"ggml-{name}.bin",))
    return PackReference(
        f"whisper-{name}", (source,), PackKind.WHISPER_GGML, _WHISPER_LICENCE, size_bytes
    )


REGISTERED: dict[str, PackReference] = {
    reference.name: reference
    for reference in (
        PackReference(
            "paraformer-demo",
            (BuiltinSource("paraformer-demo"),),
            PackKind.ASR,
            _OWN_LICENCE,
        ),
        PackReference(
            "ct-punc-demo",
            (BuiltinSource("ct-punc-demo"),),
            PackKind.PUNCTUATION,
            _OWN_LICENCE,
        ),
        PackReference(
            "fsmn-vad",
            (WheelSource(FSMN_VAD_WHEEL),),
            PackKind.VAD,
            _FUNASR_LICENCE,
            sum(file.size_bytes for file in FSMN_VAD_WHEEL.files),
        ),
        PackReference(
            "paraformer-large",
            (
                HubSource(
                    Hub.MODELSCOPE,
                    "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
                ),
            ),
            PackKind.ASR,
            _FUNASR_LICENCE,
            1_000_000_000,
        ),
        PackReference(
            "paraformer-large-vanilla",
            (
                HubSource(
                    Hub.MODELSCOPE,
                    "iic/speech_paraformer-large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
                ),
                HubSource(Hub.HUGGING_FACE, "funasr/paraformer-zh", _PARAFORMER_ZH_COMMIT),
            ),
            PackKind.ASR,
            _FUNASR_LICENCE,
            890_000_000,
        ),
        PackReference(
            "paraformer-small",
            (
                HubSource(
                    Hub.MODELSCOPE,
                    "iic/speech_paraformer_asr_nat-zh-cn-16k-common-vocab8358-tensorflow1",
                ),
            ),
            PackKind.ASR,
            _FUNASR_LICENCE,
            280_000_000,
        ),
        PackReference(
            "ct-punc",
            (
                HubSource(Hub.MODELSCOPE, "iic/punc_ct-transformer_cn-en-common-vocab471067-large"),
                HubSource(Hub.HUGGING_FACE, "funasr/ct-punc", _CT_PUNC_COMMIT),
            ),
            PackKind.PUNCTUATION,
            _FUNASR_LICENCE,
            1_140_000_000,
        ),
        PackReference(
            "ct-punc-small",
            (
                HubSource(
                    Hub.MODELSCOPE, "iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch"
                ),
            ),
            PackKind.PUNCTUATION,
            _FUNASR_LICENCE,
            300_000_000,
        ),
        _whisper("base", 148_000_000),
        _whisper("small", 488_000_000),
        _whisper("large-v3-turbo", 1_625_000_000),
    )
}

_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_HUB_NAME = re.compile(rf"(ms|hf):({_WORD}/{_WORD})(?:@({_WORD}))?")
_GRAMMAR = (
    "Another pack is named as ms:ORG/NAME[@REVISION] (ModelScope), hf:ORG/NAME[@REVISION] "
    "(Hugging Face) or dir:/ABSOLUTE/PATH (a directory in FunASR's format)"
)


def find_pack(name: str) -> PackReference:
    """Says what `name` stands for; touches neither disk nor network.

    Raises:
        PackNotFound: the name is neither registered nor in a known form.
    """
    if name in REGISTERED:
        return REGISTERED[name]
    if name.startswith(("dir:", "/")):
        return _directory_reference(name)
    if name.startswith("wheel:"):
        return _wheel_reference(name)
    if match := _HUB_NAME.fullmatch(name):
        hub, repository, revision = match.groups()
        return PackReference(name, (HubSource(Hub(hub), repository, revision),))
    known = ", ".join(REGISTERED)
    raise PackNotFound(name, f"no pack has this name; known: {known}", _GRAMMAR)


def shown_name(name: str) -> str:
    """Returns what callers of a service call a pack; a name of no known form stays.

    Settings are read before anything is known of packs, so nothing is raised here.
    """
    try:
        return find_pack(name).shown_name or name
    except PackNotFound:
        return name


def is_demo_pack(name: str) -> bool:
    """Says whether a pack is one of the built-in demo models.

    They know made-up office sentences in synthetic voices only: what they make of real
    recordings is nonsense, and whoever shows their results must say so.

    Args:
        name: of a pack, as in the settings or as callers of a service see it.
    """
    reference = REGISTERED.get(name)
    return reference is not None and any(
        isinstance(source, BuiltinSource) for source in reference.sources
    )


def _directory_reference(name: str) -> PackReference:
    path = Path(name.removeprefix("dir:")).expanduser()
    if not path.is_absolute():
        # A replica's working directory is not the operator's.
        raise PackNotFound(name, "the path is relative", "Give it as an absolute path")
    return PackReference(name, (DirectorySource(path),))


def _wheel_reference(name: str) -> PackReference:
    pinned = {
        str(source): reference
        for reference in REGISTERED.values()
        for source in reference.sources
        if isinstance(source, WheelSource)
    }
    if name not in pinned:
        raise PackNotFound(
            name,
            f"only pinned wheels are used: {', '.join(pinned)}",
            "Unpack the wheel yourself and name the directory as dir:/ABSOLUTE/PATH",
        )
    return pinned[name]
