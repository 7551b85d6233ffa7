"""Chooses the measured packs: installed ones, else packs with random weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from serve_app.core.errors import ConfigurationError, PackError
from serve_app.packs import PackStore, find_pack
from serve_app.packs.inspection import locate

# Published pack to the architecture that replaces it.
_ARCHITECTURE_OF_MODEL = {
    "paraformer-large": "seaco-paraformer-large",
    "paraformer-large-vanilla": "paraformer-large",
    "paraformer-small": "paraformer-small",
    "ct-punc": "ct-punc",
    "ct-punc-small": "ct-punc-small",
    "campplus-zh-en": "campplus",
}

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PackChoice:
    """A pack by its name in settings, and its label in the table.

    With `is_random`, it has the published architecture and random weights: size and speed are
    the same, but its text is meaningless.
    """

    name: str
    label: str
    is_random: bool = False


@dataclass(frozen=True, slots=True)
class BenchPacks:
    """The pack of each role."""

    vad: PackChoice = PackChoice("fsmn-vad", "fsmn-vad")
    asr: PackChoice = PackChoice("paraformer-large", "paraformer-large")
    punctuation: PackChoice = PackChoice("ct-punc", "ct-punc")
    small_asr: PackChoice = PackChoice("paraformer-small", "paraformer-small")
    small_punctuation: PackChoice = PackChoice("ct-punc-small", "ct-punc-small")
    speakers: PackChoice = PackChoice("campplus-zh-en", "campplus-zh-en")
    onnx: PackChoice | None = None

    @property
    def any_random(self) -> bool:
        chosen = (getattr(self, field.name) for field in fields(self))
        return any(choice is not None and choice.is_random for choice in chosen)


def choose_packs(
    named: Mapping[str, str],
    store: PackStore,
    synth_dir: Path,
    report: Report,
    needed: Collection[str] | None = None,
) -> BenchPacks:
    """Chooses named or installed packs, and writes random ones for the rest.

    Args:
        named: role to pack, as `asr` to `dir:/PATH`.
        store: of pulled packs; nothing is downloaded.
        synth_dir: directory of packs with random weights, which are reused.
        report: called with progress messages.
        needed: roles whose pack must exist; None for all.

    Raises:
        ConfigurationError: a role is unknown.
        PackError: a named pack is missing, or one cannot be written.
    """
    roles = [field.name for field in fields(BenchPacks)]
    if unknown := sorted(set(named) - set(roles)):
        raise ConfigurationError(f"no role {', '.join(unknown)}; there are {', '.join(roles)}")
    needed = set(roles if needed is None else needed)
    if "onnx" in needed:
        needed.add("asr")  # it is exported from that
    packs = BenchPacks()
    chosen = {
        role: PackChoice(name, name.rpartition("/")[2] or name) for role, name in named.items()
    }
    for role in roles:
        default: PackChoice | None = getattr(packs, role)
        if role in needed and role not in chosen and default is not None:
            chosen[role] = _local_or_random(default, store, synth_dir, report)
    if "onnx" in needed and "onnx" not in chosen:
        exported = _export(chosen["asr"], store, synth_dir, report)
        if exported is not None:
            chosen["onnx"] = exported
    return replace(packs, **chosen)


def _local_or_random(
    choice: PackChoice, store: PackStore, synth_dir: Path, report: Report
) -> PackChoice:
    architecture = _ARCHITECTURE_OF_MODEL.get(choice.name)
    if architecture is None or locate(find_pack(choice.name), store).is_dir():
        return choice
    directory = synth_dir / architecture
    if not directory.is_dir():
        # Imports PyTorch, which the measuring process does not need.
        from serve_app.modeltools.random_packs import synthesize

        report(
            f"{choice.name} is not installed: writing random weights of its size into {directory}"
        )
        synthesize(architecture, directory)
    return PackChoice(f"dir:{directory.absolute()}", choice.label, is_random=True)


def _export(
    choice: PackChoice, store: PackStore, synth_dir: Path, report: Report
) -> PackChoice | None:
    """Returns the exported recognizer; None without onnxruntime."""
    try:
        from serve_app.modeltools.onnx_export import export
    except ImportError as error:
        report(f"no row for onnxruntime: {error}; pip install 'paraserve[onnx]'")
        return None
    from serve_app.packs import resolve

    try:
        pack = resolve(choice.name, store, fetch=False)
        directory = synth_dir / f"onnx-int8-{pack.checksum[:12]}"
        if not directory.is_dir():
            report(f"exporting {choice.label} to ONNX into {directory}")
            export(pack, directory, "int8")
    except PackError as error:
        report(f"no row for onnxruntime: {error}")
        return None
    return PackChoice(f"dir:{directory.absolute()}", choice.label, choice.is_random)
