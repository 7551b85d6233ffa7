"""The file of the secrets that sign webhooks, by the name of the API key whose jobs they tell of.

Secrets have the form of Standard Webhooks: `whsec_` and 24 to 64 random bytes in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from serve_app.core.errors import ConfigurationError
from serve_app.settings.secret_files import read_secret_file, write_secret_file
from serve_app.settings.section import Section

MAX_SECRETS = 2
"""Of one key: the new one, and the one before it until its receivers have changed over."""

_PREFIX = "whsec_"
_RANDOM_BYTES = 32
_MIN_BYTES, _MAX_BYTES = 24, 64
_NAME = r"[A-Za-z0-9._-]{1,64}"
_KIND = "webhook secrets file"
_EMPTY = "for no secrets write 'secrets: []'"


def secret_bytes(secret: str) -> bytes:
    """Returns the key of a secret's signatures.

    Raises:
        ValueError: it has another form; the message does not repeat it.
    """
    problem = f"a secret is {_PREFIX} and {_MIN_BYTES} to {_MAX_BYTES} bytes in base64"
    if not secret.startswith(_PREFIX):
        raise ValueError(problem)
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(problem) from None
    if not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise ValueError(problem)
    return key


def _checked(secret: str) -> str:
    secret_bytes(secret)
    return secret


class WebhookSecrets(Section):
    """The secrets of one key; each signs every webhook, the newest first."""

    name: str = Field(pattern=f"^{_NAME}$")
    secrets: tuple[Annotated[str, AfterValidator(_checked)], ...] = Field(
        min_length=1, max_length=MAX_SECRETS, repr=False
    )


class WebhookSecretsFile(Section):
    secrets: tuple[WebhookSecrets, ...] = ()


def new_webhook_secret() -> str:
    """Returns a secret with 256 random bits."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()


def read_webhook_secrets(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Returns the secrets by the name of the key, the newest first.

    Raises:
        ConfigurationError: the file cannot be read, has no content, or is not such a file; the
            message never repeats a secret.
    """
    entries = read_secret_file(path, _KIND, WebhookSecretsFile, _EMPTY).secrets
    by_name = {entry.name: entry.secrets for entry in entries}
    if len(by_name) < len(entries):
        raise ConfigurationError(f"{_KIND} {path} has the same name twice")
    return by_name


def add_webhook_secret(path: Path, name: str) -> str:
    """Makes the first secret of a key, and the file if there is none; returns the secret.

    Raises:
        ConfigurationError: the key has one, or the file cannot be read or written.
    """
    by_name = _present(path)
    if name in by_name:
        raise ConfigurationError(f"{name} has a webhook secret in {path}; --rotate makes a new one")
    return _write_with(path, by_name, name, ())


def rotate_webhook_secret(path: Path, name: str, *, drop_old: bool = False) -> str:
    """Makes a new secret beside the present one; returns the new one.

    Args:
        path: of the file.
        name: of the key.
        drop_old: drop one that an earlier rotation left, instead of refusing.

    Raises:
        ConfigurationError: the key has no secret, or has two already; the file cannot be read
            or written.
    """
    by_name = _present(path)
    current = _secrets_of(path, by_name, name)
    if len(current) >= MAX_SECRETS and not drop_old:
        raise ConfigurationError(
            f"{name} has an old webhook secret in {path} already; drop it first with --drop-old"
        )
    return _write_with(path, by_name, name, current[: MAX_SECRETS - 1])


def drop_old_webhook_secret(path: Path, name: str) -> bool:
    """Keeps only the newest secret of a key; returns whether there was another.

    Raises:
        ConfigurationError: the key has no secret; the file cannot be read or written.
    """
    by_name = _present(path)
    current = _secrets_of(path, by_name, name)
    if len(current) == 1:
        return False
    _write(path, {**by_name, name: current[:1]})
    return True


def as_yaml(name: str, of_key: Sequence[str]) -> dict[str, object]:
    """Returns an entry as written to the file.

    Raises:
        ConfigurationError: no key can have this name.
    """
    if not re.fullmatch(_NAME, name):
        raise ConfigurationError(
            "the name of a key is 1 to 64 letters, digits, dots, hyphens and underscores"
        )
    return {"name": name, "secrets": list(of_key)}


def _present(path: Path) -> dict[str, tuple[str, ...]]:
    exists = path.exists() and path.stat().st_size
    return dict(read_webhook_secrets(path)) if exists else {}


def _secrets_of(path: Path, by_name: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...]:
    if name not in by_name:
        raise ConfigurationError(f"{name} has no webhook secret in {path}")
    return by_name[name]


def _write_with(
    path: Path, by_name: Mapping[str, tuple[str, ...]], name: str, older: tuple[str, ...]
) -> str:
    secret = new_webhook_secret()
    _write(path, {**by_name, name: (secret, *older)})
    return secret


def _write(path: Path, by_name: Mapping[str, tuple[str, ...]]) -> None:
    write_secret_file(path, {"secrets": [as_yaml(*each) for each in by_name.items()]})
