"""Webhooks: whether a message is from the service, and what it says.

Source: Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from serve_app.client.job_records import Job, job_of

TOLERANCE_S = 300.0
_PREFIX = "whsec_"
_VERSION = "v1"


class WebhookRefused(ValueError):
    """A message is not from the service, is too old, or is no message of a job."""


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """A message about a job.

    Attributes:
        id: the same in each attempt to deliver it: a receiver acts once for an id.
        type: transcription.completed, .failed, .cancelled or .expired.
        at: when the job entered that state.
        job: as it was then.
    """

    id: str
    type: str
    at: datetime
    job: Job


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secrets: str | Iterable[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> WebhookEvent:
    """Returns the message of a webhook whose signature is right.

    Args:
        body: as it arrived, not parsed and written again.
        headers: of the request, in any case.
        secrets: one `whsec_...` or several; during a rotation the old and the new one.
        tolerance_s: how far the sender's clock may be from this one; an older message may be
            one that somebody recorded.
        now_s: the present time, as a Unix timestamp; this machine's clock by default.

    Raises:
        WebhookRefused: it is not from the service, or its time is too far away.
        ValueError: a secret is not one.
    """
    raw = body.encode() if isinstance(body, str) else bytes(body)
    given = {name.lower(): value for name, value in headers.items()}
    keys = [_key(one) for one in ([secrets] if isinstance(secrets, str) else secrets)]
    message_id, timestamp, signatures = (
        given.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not message_id or not timestamp or not signatures:
        raise WebhookRefused("the webhook has no signature")
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
        raise WebhookRefused("the webhook's time is not a Unix timestamp")
    if abs((time.time() if now_s is None else now_s) - int(timestamp)) > tolerance_s:
        raise WebhookRefused(f"the webhook was not sent within {tolerance_s:g} s of now")
    signed = f"{message_id}.{timestamp}.".encode() + raw
    if not _is_signed(signed, signatures, keys):
        raise WebhookRefused("no signature of the webhook is right for a secret that was given")
    return _event(message_id, raw)


def _is_signed(signed: bytes, signatures: str, keys: Iterable[bytes]) -> bool:
    given = [one.partition(",")[2].encode() for one in signatures.split() if _is_known(one)]
    right = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    # Compared in constant time: the time would tell how much of a guess is right.
    return any(hmac.compare_digest(one, other) for one in given for other in right)


def _is_known(signature: str) -> bool:
    return signature.partition(",")[0] == _VERSION


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:  # anybody can sign with an empty one
        raise ValueError("a webhook secret is whsec_ and bytes in base64")
    return key


def _event(message_id: str, raw: bytes) -> WebhookEvent:
    try:
        message = json.loads(raw)
        at = datetime.fromisoformat(message["timestamp"])
        return WebhookEvent(message_id, str(message["type"]), at, job_of(message["data"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise WebhookRefused("the webhook is not a message about a job") from None
