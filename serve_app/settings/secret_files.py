"""YAML files with secrets or their hashes: read without repeating them, replaced as a whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from serve_app.core.errors import ConfigurationError

ModelT = TypeVar("ModelT", bound=BaseModel)

_NEW_FILE_MODE = 0o600


def read_secret_file(path: Path, kind: str, model: type[ModelT], empty: str) -> ModelT:
    """Returns the content of a file.

    Args:
        path: of the file.
        kind: what the file is called in messages, such as "keys file".
        model: of its content.
        empty: what to write for a file that is meant to hold nothing.

    Raises:
        ConfigurationError: it cannot be read, has no content, or other content; the message
            never repeats its values, nor names in it that the model does not know.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{kind} {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise ConfigurationError(f"{kind} {path} is not YAML") from None
    if content is None:
        # More likely an unfinished deployment than the intent to withdraw everything.
        raise ConfigurationError(f"{kind} {path} is empty; {empty}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(f"{kind} {path}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """Returns the first problem; an unknown name may be a secret in the wrong place."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    if first["type"] == "extra_forbidden":
        known, problem = first["loc"][:-1], "has an unknown name"
    else:
        known, problem = first["loc"], first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, known)) or 'the file'}: {problem}"


def write_secret_file(path: Path, content: Mapping[str, object]) -> None:
    """Writes a file as a whole: a reader never sees half of it. A new one is its owner's only.

    Raises:
        ConfigurationError: it cannot be written.
    """
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else _NEW_FILE_MODE
        try:
            draft.touch(mode=_NEW_FILE_MODE)
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(mode)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
