"""Opens a model pack: a directory in FunASR's on-disk format.

FunASR 1.4.16 silently accepts an incomplete pack: without model.pt it uses random
weights, it ignores a vocabulary of the wrong length, and a missing am.mvn ruins the
text. Here each of these is an error that names the missing file. Nothing in a pack is ever
executed.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from serve_app.core.errors import PackCorrupt, PackIncomplete, PackNotFound
from serve_app.packs.ggml import MODEL_CLASS, check_whisper, find_whisper
from serve_app.packs.pack_files import (
    fetch_remedy,
    read_config,
    read_frontend_cmvn,
    read_json,
    read_tokens,
)

if TYPE_CHECKING:
    import torch

# Published punctuation packs name this file, but the hub lacks it. Paraserve does not need it,
# since it punctuates the recognizer's words without segmenting them.
_UNUSED_FILES = frozenset({"jieba_usr_dict"})
_PARAFORMER_CLASSES = frozenset(
    {
        "Paraformer",
        "BiCifParaformer",
        "SeacoParaformer",
        "ContextualParaformer",
        "ParaformerOnnx",
    }
)
_SPEAKER_CLASS = "CAMPPlus"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class PackContents:
    """A pack whose files are complete and consistent.

    Attributes:
        name: as in messages and responses.
        directory: that holds it.
        model_class: FunASR's name for the architecture, e.g. `Paraformer`.
        config: the parsed config.yaml.
        weights: the checkpoint file.
        tokens: the vocabulary by id; () for a model without one.
        cmvn: shape (2, dim): row 0 the shift that is added, row 1 the scale;
            None for a model without an acoustic front end.
        checksum: SHA-256 of the checkpoint, hexadecimal.
    """

    name: str
    directory: Path
    model_class: str
    config: Mapping[str, Any]
    weights: Path
    tokens: tuple[str, ...]
    cmvn: npt.NDArray[np.float32] | None
    checksum: str


@dataclass(frozen=True, slots=True)
class _PackFiles:
    """The paths of a pack's files; None if the pack names none."""

    config: Path
    weights: Path
    tokens: Path | None
    cmvn: Path | None


def open_pack(directory: Path, name: str | None = None) -> PackContents:
    """Reads everything of a pack except its weights, and checks that it is complete.

    Args:
        directory: the pack.
        name: for messages; the directory's name by default.

    Raises:
        PackNotFound: the directory does not exist.
        PackIncomplete: files are missing.
        PackCorrupt: files cannot be parsed, or contradict each other.
    """
    name = directory.name if name is None else name
    if not directory.is_dir():
        raise PackNotFound(name, f"{directory} is not a directory", fetch_remedy(name))
    if (whisper := find_whisper(directory)) is not None:
        check_whisper(whisper, name)
        checksum = _checksum(whisper)
        return PackContents(name, directory, MODEL_CLASS, {}, whisper, (), None, checksum)
    files = _locate(directory, name)
    config = read_config(files.config, name)
    model_class = config.get("model")
    if not isinstance(model_class, str) or not model_class:
        raise PackCorrupt(name, "config.yaml has no `model:`", fetch_remedy(name))
    needs_tokens = model_class in _PARAFORMER_CLASSES or bool(config.get("tokenizer"))
    tokens: tuple[str, ...] = ()
    if files.tokens is not None and files.tokens.suffix == ".json":
        tokens = read_tokens(files.tokens, name, model_class in _PARAFORMER_CLASSES)
    elif needs_tokens:
        raise PackIncomplete(
            name, f"tokens.json (the vocabulary) is missing in {directory}", fetch_remedy(name)
        )
    cmvn = None
    # CAM++ computes its own features, whatever front end its config.yaml names.
    if model_class != _SPEAKER_CLASS:
        cmvn = read_frontend_cmvn(config, files.cmvn, directory, name)
    return PackContents(
        name=name,
        directory=directory,
        model_class=model_class,
        config=config,
        weights=files.weights,
        tokens=tokens,
        cmvn=cmvn,
        checksum=_checksum(files.weights),
    )


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _locate(directory: Path, name: str) -> _PackFiles:
    """Finds the files by configuration.json if there is one, else by their usual names."""
    metas: dict[str, str] = {}
    configuration = directory / "configuration.json"
    if configuration.is_file():
        parsed = read_json(configuration, name)
        if isinstance(parsed, dict):
            metas = _flatten(parsed.get("file_path_metas"))
    files = {key: _inside(directory, value, name) for key, value in metas.items()}
    missing = sorted(
        path.name for key, path in files.items() if key not in _UNUSED_FILES and not path.is_file()
    )
    if missing:
        raise PackIncomplete(
            name,
            f"{', '.join(missing)} (named by configuration.json) missing in {directory}",
            fetch_remedy(name),
        )
    for key, usual_name in (("config", "config.yaml"), ("init_param", "model.pt")):
        path = files.setdefault(key, directory / usual_name)
        if not path.is_file():
            raise PackIncomplete(name, f"{path.name} is missing in {directory}", fetch_remedy(name))
    return _PackFiles(
        config=files["config"],
        weights=files["init_param"],
        tokens=files.get("token_list", _if_file(directory / "tokens.json")),
        cmvn=files.get("cmvn_file", _if_file(directory / "am.mvn")),
    )


def _flatten(metas: object) -> dict[str, str]:
    """Returns the file names in the nested file_path_metas by their last key."""
    found: dict[str, str] = {}
    if isinstance(metas, dict):
        for key, value in metas.items():
            if isinstance(value, str):
                found[str(key)] = value
            else:
                found.update(_flatten(value))
    return found


def _inside(directory: Path, file_name: str, name: str) -> Path:
    path = directory / file_name
    # A pack is untrusted: it must not name files outside of its directory. The unresolved path
    # is compared, because hub caches link files elsewhere.
    if Path(file_name).is_absolute() or ".." in Path(file_name).parts:
        raise PackCorrupt(
            name,
            f"configuration.json names a file outside the pack: {file_name}",
            fetch_remedy(name),
        )
    return path


def _if_file(path: Path) -> Path | None:
    return path if path.is_file() else None


def load_weights(contents: PackContents) -> dict[str, torch.Tensor]:
    """Maps the checkpoint into memory; processes on one machine share its pages.

    The wrappers that FunASR's trainer writes (`state_dict`, `model`) and the `module.` prefix
    of data-parallel training are removed. Only tensors are unpickled, never code.

    Raises:
        PackCorrupt: the file is not a checkpoint, or holds other things than tensors.
    """
    # A replica that runs ONNX also opens packs and does not need 200 MB of PyTorch.
    import torch

    try:
        loaded: object = torch.load(
            contents.weights,
            # Checkpoints from before torch 1.6 are not zip archives and cannot be mapped.
            mmap=zipfile.is_zipfile(contents.weights),
            weights_only=True,
            map_location="cpu",
        )
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise PackCorrupt(
            contents.name,
            f"{contents.weights.name} is not a readable checkpoint: {error}",
            _again(contents),
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, dict) and wrapper in loaded:
            loaded = loaded[wrapper]
    state: dict[str, torch.Tensor] = {}
    for key, value in loaded.items() if isinstance(loaded, dict) else ():
        if isinstance(key, str) and isinstance(value, torch.Tensor):
            state[key.removeprefix("module.")] = value
    if not state:
        raise PackCorrupt(
            contents.name, f"{contents.weights.name} holds no tensors", _again(contents)
        )
    return state


def load_into(
    module: torch.nn.Module, contents: PackContents, *, ignore_prefixes: Sequence[str] = ()
) -> None:
    """Loads the checkpoint into a module, which may be on the meta device.

    Tensors become the module's parameters without a copy, except for half-precision ones,
    which are converted to float32.

    Args:
        module: its state must be a subset of the checkpoint's.
        contents: the pack.
        ignore_prefixes: of checkpoint keys that the module does not use.

    Raises:
        PackIncomplete: the checkpoint lacks parameters of the module.
        PackCorrupt: shapes differ, or the checkpoint has unknown keys.
    """
    state = load_weights(contents)
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise PackIncomplete(
            contents.name,
            f"{contents.weights.name} lacks {_some(missing)}, which config.yaml requires",
            _again(contents),
        )
    for key, parameter in wanted.items():
        if state[key].shape != parameter.shape:
            raise PackCorrupt(
                contents.name,
                f"{key} has shape {tuple(state[key].shape)} in {contents.weights.name}, but "
                f"{tuple(parameter.shape)} by config.yaml and tokens.json",
                _again(contents),
            )
    left = sorted(key for key in state.keys() - wanted.keys() if not _ignored(key, ignore_prefixes))
    if left:
        raise PackCorrupt(
            contents.name,
            f"{contents.weights.name} holds {_some(left)}, which this model class does not use",
            "Check that config.yaml belongs to this checkpoint; " + _again(contents),
        )
    chosen = {
        key: state[key].float() if state[key].is_floating_point() else state[key] for key in wanted
    }
    module.load_state_dict(chosen, strict=True, assign=True)
    module.requires_grad_(False).eval()


def _ignored(key: str, prefixes: Sequence[str]) -> bool:
    return any(key.startswith(prefix) for prefix in prefixes)


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:_NAMES_SHOWN])
    rest = len(keys) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _again(contents: PackContents) -> str:
    return (
        f"Run `paraserve models pull {contents.name}`, or copy config.yaml, tokens.json and "
        f"{contents.weights.name} again from the page of the model"
    )
