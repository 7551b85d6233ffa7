"""Short-lived keys that open live sessions and nothing else.

A browser cannot keep an API key. The page's own server exchanges its key for a client secret,
which the page then presents. The secret holds the name of the key, the time at which it ends
and the session's defaults, and is signed with the key's hash: every replica can verify it
without a store, and it ends with its key.

Source of the shape: OpenAI's API reference, "Client secrets" (`ek_...`, 10 to 7200 s).
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serve_app.api.auth import Authenticator, Caller
from serve_app.core.errors import InvalidParameter, Unauthenticated

PREFIX = "ek_"
MIN_LIFETIME_S, MAX_LIFETIME_S = 10, 7200
# A browser sends it in a header: those of a request may have 16 KiB together.
MAX_CHARS = 6 * 1024
_MAX_CONTENT_BYTES = 256 * 1024
_NONCE_BYTES = 8


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A secret that was made.

    Attributes:
        value: what the client presents.
        expires_unix_s: until when it opens sessions; those that are open stay so.
    """

    value: str
    expires_unix_s: int


@dataclass(frozen=True, slots=True)
class OpenedSecret:
    """What a secret stands for.

    Attributes:
        caller: for whose key it was made.
        session: the session that it was made with.
    """

    caller: Caller
    session: Mapping[str, object]


class ClientSecrets:
    """Makes and verifies client secrets.

    Args:
        authenticator: knows the keys.
        default_lifetime_s: of secrets that name none.
        clock: Unix time in s.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        default_lifetime_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._default_lifetime_s = default_lifetime_s
        self._clock = clock

    def make(
        self, caller: Caller, session: Mapping[str, object], lifetime_s: int | None
    ) -> ClientSecret:
        """Returns a secret for a caller that presented its key.

        Raises:
            InvalidParameter: the lifetime is out of range, or the session is too long.
            Unauthenticated: the key has just been revoked.
        """
        longest_s = max(MAX_LIFETIME_S, self._default_lifetime_s)
        if lifetime_s is not None and not MIN_LIFETIME_S <= lifetime_s <= longest_s:
            raise InvalidParameter(
                "expires_after.seconds", f"must be from {MIN_LIFETIME_S} to {longest_s:g}"
            )
        if not (keys := self._authenticator.signing_secrets(caller.name)):
            raise Unauthenticated("the API key is not valid any more")
        expires = int(self._clock() + (lifetime_s or self._default_lifetime_s))
        content = {
            "expires": expires,
            "nonce": secrets.token_hex(_NONCE_BYTES),
            "session": session,
        }
        payload = _as_text(zlib.compress(json.dumps(content, separators=(",", ":")).encode()))
        signed = f"{_as_text(caller.name.encode())}.{payload}"
        value = f"{PREFIX}{signed}.{_as_text(_signature(keys[-1], signed))}"
        if len(value) > MAX_CHARS:
            raise InvalidParameter("session", "has too many keywords for a client secret")
        return ClientSecret(value, expires)

    def open(self, value: str) -> OpenedSecret:
        """Returns what a secret stands for.

        Raises:
            Unauthenticated: it is not one, or has expired, or its key is not valid any more.
            KeysUnavailable: keys cannot be checked now.
        """
        signed, _, signature = value.removeprefix(PREFIX).rpartition(".")
        name, _, payload = signed.partition(".")
        if len(value) > MAX_CHARS or not value.startswith(PREFIX) or not value.isascii():
            raise Unauthenticated("the client secret is not valid")
        try:
            key_name, given = _as_bytes(name).decode(), _as_bytes(signature)
        except ValueError:
            raise Unauthenticated("the client secret is not valid") from None
        caller = self._authenticator.caller_named(key_name)
        keys = self._authenticator.signing_secrets(key_name)
        verified = [hmac.compare_digest(_signature(key, signed), given) for key in keys]
        if not any(verified):
            raise Unauthenticated("the client secret is not valid")
        expires, session = _read(payload)
        if self._clock() >= expires:
            raise Unauthenticated("the client secret has expired")
        return OpenedSecret(caller, session)


def _read(payload: str) -> tuple[float, Mapping[str, object]]:
    """Reads the content; where no keys are needed, anyone can have written and signed it.

    Raises:
        Unauthenticated: it is not what `ClientSecrets.make` writes.
    """
    try:
        reader = zlib.decompressobj()
        content = json.loads(reader.decompress(_as_bytes(payload), _MAX_CONTENT_BYTES))
        expires, session = float(content["expires"]), content["session"]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, zlib.error):
        raise Unauthenticated("the client secret is not valid") from None
    if not isinstance(session, dict):
        raise Unauthenticated("the client secret is not valid")
    return expires, session


def _signature(key: bytes, signed: str) -> bytes:
    return hmac.digest(key, signed.encode("ascii"), "sha256")


def _as_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _as_bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
