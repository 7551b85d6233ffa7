"""Where webhooks may be sent, and whose are signed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from serve_app.api.webhook_urls import WebhookPolicy, WebhookSecretNames
from serve_app.core.errors import ConfigurationError, InvalidParameter
from serve_app.settings.jobs import JobSettings
from serve_app.settings.webhook_secrets import add_webhook_secret

LOGGER = logging.getLogger("tests.api")


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://hooks.example.com/a?b=c", "hooks.example.com", 443, b"/a?b=c"),
        ("https://EXAMPLE.com.:8443", "example.com", 8443, b"/"),
        ("https://[2001:db8::1]/x", "2001:db8::1", 443, b"/x"),
    ],
)
def test_url_is_taken_apart(url: str, host: str, port: int, path: bytes) -> None:
    target = WebhookPolicy(JobSettings()).check(url)
    assert (target.scheme, target.host, target.port, target.path) == ("https", host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "example.com/hook",
        "https:///hook",
        "https://user:pw@example.com/",
        "https://@example.com/",
        "https://example.com\\@evil.example/",
        "https://example.com/\nX: y",
        "https://" + "a" * 3000,
        "https://exa mple.com/",
        "",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="webhook_url"):
        WebhookPolicy(JobSettings()).check(url)


def test_only_listed_hosts_get_webhooks() -> None:
    policy = WebhookPolicy(JobSettings(webhook_hosts=("*.example.com", "other.net:8443")))
    assert policy.check("https://a.example.com/").host == "a.example.com"
    assert policy.check("https://other.net:8443/").port == 8443
    for url in ("https://example.com.evil.net/", "https://other.net/", "https://example.com:99/"):
        with pytest.raises(InvalidParameter, match="not send webhooks to its host"):
            policy.check(url)


def test_http_is_for_private_networks() -> None:
    policy = WebhookPolicy(JobSettings(webhook_allow_private=True))
    assert policy.check("http://10.0.0.1:9000/hook").port == 9000


def test_secrets_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yaml"
    add_webhook_secret(path, "team-a")
    names = WebhookSecretNames(path, LOGGER)
    assert (names.has("team-a"), names.has("team-b")) == (True, False)
    add_webhook_secret(path, "team-b")
    assert names.has("team-b")
    path.write_text("secrets: 5\n", encoding="utf-8")
    assert names.has("team-b")
    path.unlink()
    assert names.has("team-a")


def test_unusable_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        WebhookSecretNames(tmp_path / "missing.yaml", LOGGER)
    assert not WebhookSecretNames(None, LOGGER).has("team-a")
