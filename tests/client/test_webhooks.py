from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
import standardwebhooks

from serve_app.client import WebhookRefused, verify_webhook
from tests.client.job_service import job_json

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
NOW_S = 1_700_000_000
BODY = json.dumps(
    {
        "type": "transcription.completed",
        "timestamp": "2023-11-14T22:13:20Z",
        "data": job_json(status="completed"),
    }
).encode()


def headers_of(secret: str = SECRET, at_s: int = NOW_S, body: bytes = BODY) -> dict[str, str]:
    """Returns the headers as another implementation makes them."""
    at = datetime.fromtimestamp(at_s, UTC)
    signature = standardwebhooks.Webhook(secret).sign("msg_1", at, body.decode())
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(at_s),
        "Webhook-Signature": signature,
    }


def test_signature_of_standard_webhooks_is_accepted() -> None:
    event = verify_webhook(BODY, headers_of(), SECRET, now_s=NOW_S + 299)
    assert (event.id, event.type, event.job.status) == (
        "msg_1",
        "transcription.completed",
        "completed",
    )
    assert event.at.isoformat() == "2023-11-14T22:13:20+00:00"
    assert verify_webhook(BODY.decode(), headers_of(), [SECRET], now_s=NOW_S) == event


def test_during_a_rotation_any_signature_by_any_secret_is_enough() -> None:
    headers = headers_of(OTHER)
    headers["Webhook-Signature"] = f"v1a,xx {headers_of()['Webhook-Signature']} v1,eA=="
    assert verify_webhook(BODY, headers, [OTHER, SECRET], now_s=NOW_S)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "no signature"),
        (headers_of(OTHER), "no signature of the webhook is right"),
        (headers_of(at_s=NOW_S - 301), "within 300 s"),
        (headers_of(at_s=NOW_S + 301), "within 300 s"),
        ({**headers_of(), "Webhook-Id": "msg_2"}, "is right"),
        ({**headers_of(), "Webhook-Timestamp": str(NOW_S + 1)}, "is right"),
        ({**headers_of(), "Webhook-Timestamp": "soon"}, "not a Unix timestamp"),
        ({**headers_of(), "Webhook-Timestamp": "9" * 5000}, "not a Unix timestamp"),
        ({**headers_of(), "Webhook-Signature": "v2,eA=="}, "is right"),
        ({**headers_of(), "Webhook-Signature": "v1,é"}, "is right"),
    ],
)
def test_other_messages_are_refused(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(WebhookRefused, match=reason):
        verify_webhook(BODY, headers, SECRET, now_s=NOW_S)


def test_changed_body_is_refused() -> None:
    with pytest.raises(WebhookRefused, match="is right"):
        verify_webhook(BODY + b" ", headers_of(), SECRET, now_s=NOW_S)


def test_signed_message_about_something_else_is_refused() -> None:
    body = b'{"type": "other", "timestamp": "2023-11-14T22:13:20Z", "data": {}}'
    with pytest.raises(WebhookRefused, match="about a job"):
        verify_webhook(body, headers_of(body=body), SECRET, now_s=NOW_S)


def test_without_secrets_nothing_is_accepted() -> None:
    with pytest.raises(WebhookRefused):
        verify_webhook(BODY, headers_of(), [], now_s=NOW_S)
    for empty in ("", "whsec_", "whsec_!!"):
        with pytest.raises(ValueError, match="whsec_ and bytes"):
            verify_webhook(BODY, headers_of(), empty, now_s=NOW_S)
