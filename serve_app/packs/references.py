"""What a pack's name stands for: a kind, and one or more places it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from serve_app.packs.pins import WheelPin


class PackKind(StrEnum):
    """What a pack's model is for, and its format where that is another than FunASR's."""

    ASR = "asr"
    VAD = "vad"
    PUNCTUATION = "punctuation"
    WHISPER_GGML = "whisper-ggml"


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
    licence: str = "see its source"
    size_bytes: int | None = None

    @property
    def shown_name(self) -> str:
        """What callers of a service may see: where a directory lies is the operator's."""
        source = self.sources[0]
        return source.path.name if isinstance(source, DirectorySource) else self.name

    @property
    def source_text(self) -> str:
        return " or ".join(str(source) for source in self.sources)
