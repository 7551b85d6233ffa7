"""Which packs the table is about: those that are here, else random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from serve_app.core.errors import ConfigurationError, PackError
from serve_app.packs import PackStore, find_pack
from serve_app.packs.inspection import locate

# The published model, and the architecture that stands in for it.
_ARCHITECTURE_OF_MODEL = {
    "paraformer-large": "seaco-paraformer-large",
    "paraformer-large-vanilla": "paraformer-large",
    "paraformer-small": "paraformer-small",
    "ct-punc": "ct-punc",
    "ct-punc-small": "ct-punc-small",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PackChoice:
    """A pack by the name that settings take, and what stands for it in the table.

    `is_random` says that its weights are random, of the published architecture:
    as large and as quick, but what it says means nothing.
    """

    name: str
    label: str
    is_random: bool = False


@dataclass(frozen=True, slots=True)
class BenchPacks:
    """A pack a role."""

    vad: PackChoice = PackChoice("fsmn-vad", "fsmn-vad")
    asr: PackChoice = PackChoice("paraformer-large", "paraformer-large")
    punctuation: PackChoice = PackChoice("ct-punc", "ct-punc")
    small_asr: PackChoice = PackChoice("paraformer-small", "paraformer-small")
    small_punctuation: PackChoice = PackChoice("ct-punc-small", "ct-punc-small")
    onnx: PackChoice | None = None

    @property
    def any_random(self) -> bool:
        chosen = (getattr(self, field.name) for field in fields(self))
        return any(choice is not None and choice.is_random for choice in chosen)


def choose_packs(
    named: Mapping[str, str], store: PackStore, synth_dir: Path, say: Say
) -> BenchPacks:
    """Takes the packs that are named or here, and writes random ones for the others.

    Args:
        named: role to pack, as `asr` to `dir:/PATH`.
        store: where pulled packs live; nothing is downloaded but the small VAD.
        synth_dir: where packs with random weights are written, and found again.
        say: told what takes time.

    Raises:
        ConfigurationError: a role is unknown.
        PackError: a named pack is not there, or one cannot be written.
    """
    roles = [field.name for field in fields(BenchPacks)]
    if unknown := sorted(set(named) - set(roles)):
        raise ConfigurationError(f"no role {', '.join(unknown)}; there are {', '.join(roles)}")
    packs = BenchPacks()
    chosen = {
        role: PackChoice(name, name.rpartition("/")[2] or name) for role, name in named.items()
    }
    for role in roles:
        default: PackChoice | None = getattr(packs, role)
        if role not in chosen and default is not None:
            chosen[role] = _local_or_random(default, store, synth_dir, say)
    if "onnx" not in chosen:
        exported = _export(chosen["asr"], store, synth_dir, say)
        if exported is not None:
            chosen["onnx"] = exported
    return replace(packs, **chosen)


def _local_or_random(choice: PackChoice, store: PackStore, synth_dir: Path, say: Say) -> PackChoice:
    architecture = _ARCHITECTURE_OF_MODEL.get(choice.name)
    if architecture is None or locate(find_pack(choice.name), store).is_dir():
        return choice
    directory = synth_dir / architecture
    if not directory.is_dir():
        # Imports PyTorch, which the process that measures has no use for.
        from serve_app.modeltools.random_packs import synthesize

        say(f"{choice.name} is not here: writing random weights of its size into {directory}")
        synthesize(architecture, directory)
    return PackChoice(f"dir:{directory.absolute()}", choice.label, is_random=True)


def _export(choice: PackChoice, store: PackStore, synth_dir: Path, say: Say) -> PackChoice | None:
    """The recognizer for onnxruntime, or None where that is not installed."""
    try:
        from serve_app.modeltools.onnx_export import export
    except ImportError as error:
        say(f"no row for onnxruntime: {error}; pip install 'paraserve[onnx]'")
        return None
    from serve_app.packs import resolve

    try:
        pack = resolve(choice.name, store, fetch=False)
        directory = synth_dir / f"onnx-int8-{pack.checksum[:12]}"
        if not directory.is_dir():
            say(f"exporting {choice.label} to ONNX into {directory}")
            export(pack, directory, "int8")
    except PackError as error:
        say(f"no row for onnxruntime: {error}")
        return None
    return PackChoice(f"dir:{directory.absolute()}", choice.label, choice.is_random)
