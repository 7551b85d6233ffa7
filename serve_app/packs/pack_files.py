"""Parses the small files of a model pack, each with an error that names the file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from serve_app.core.errors import PackCorrupt, PackIncomplete

_RESERVED_TOKENS = ("<blank>", "<s>", "</s>")
_UNKNOWN_TOKEN = "<unk>"  # noqa: S105  (a vocabulary entry, not a secret)


def fetch_remedy(name: str) -> str:
    return (
        f"Run `paraserve models pull {name}`, or copy the pack's files again "
        "from the page of the model"
    )


def read_json(path: Path, name: str) -> object:
    try:
        parsed: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise PackCorrupt(
            name, f"{path.name} is not readable JSON: {error}", fetch_remedy(name)
        ) from error
    return parsed


def read_config(path: Path, name: str) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise PackCorrupt(
            name, f"{path.name} is not readable YAML: {error}", fetch_remedy(name)
        ) from error
    if not isinstance(parsed, dict):
        raise PackCorrupt(name, f"{path.name} is not a mapping", fetch_remedy(name))
    return parsed


def read_tokens(path: Path, name: str, reserved: bool) -> tuple[str, ...]:
    """Reads the vocabulary; if `reserved`, blank, sos and eos must be at 0, 1, 2."""
    parsed = read_json(path, name)
    if not isinstance(parsed, list) or not all(isinstance(token, str) for token in parsed):
        raise PackCorrupt(name, f"{path.name} is not a list of strings", fetch_remedy(name))
    tokens = tuple(str(token) for token in parsed)
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    problem = None
    if twice:
        problem = f"{path.name} has duplicate entries; the first is {twice[0]!r}"
    elif _UNKNOWN_TOKEN not in tokens:
        problem = f"{path.name} has no {_UNKNOWN_TOKEN}"
    elif reserved and tokens[: len(_RESERVED_TOKENS)] != _RESERVED_TOKENS:
        problem = f"{path.name} must begin with {', '.join(_RESERVED_TOKENS)}"
    if problem is not None:
        raise PackCorrupt(name, problem, fetch_remedy(name))
    return tokens


def read_frontend_cmvn(
    config: Mapping[str, Any], path: Path | None, directory: Path, name: str
) -> npt.NDArray[np.float32] | None:
    """Reads am.mvn if the model has a filterbank front end, and checks its width."""
    if not str(config.get("frontend") or "").startswith("WavFrontend"):
        return None
    if path is None:
        raise PackIncomplete(
            name, f"am.mvn (the feature statistics) is missing in {directory}", fetch_remedy(name)
        )
    conf = config.get("frontend_conf") or {}
    expected = int(conf.get("lfr_m", 1)) * int(conf.get("n_mels", 80))
    cmvn = _parse_cmvn(path, name)
    if cmvn.shape != (2, expected):
        raise PackCorrupt(
            name,
            f"{path.name} has {cmvn.shape[1]} dimensions, but config.yaml requires "
            f"{expected} (lfr_m * n_mels)",
            fetch_remedy(name),
        )
    return cmvn


def _parse_cmvn(path: Path, name: str) -> npt.NDArray[np.float32]:
    """Parses Kaldi's nnet1 text: `<AddShift>` and `<Rescale>`, each with a vector.

    Source: the format of the published packs; shift is the negated mean and
    the scale is one over the standard deviation.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = [
            np.array(found.group(1).split(), dtype=np.float32)
            for tag in ("AddShift", "Rescale")
            if (found := re.search(rf"<{tag}>[^\[]*\[([^\]]*)\]", text)) is not None
        ]
    except (ValueError, OSError) as error:
        raise PackCorrupt(
            name, f"{path.name} is not readable: {error}", fetch_remedy(name)
        ) from error
    if len(rows) != 2 or rows[0].shape != rows[1].shape:
        raise PackCorrupt(
            name, f"{path.name} lacks an <AddShift> or <Rescale> vector", fetch_remedy(name)
        )
    cmvn = np.stack(rows)
    if not np.isfinite(cmvn).all():
        raise PackCorrupt(name, f"{path.name} holds values that are not finite", fetch_remedy(name))
    return cmvn
