"""Which URLs are fetched."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve_app.api.audio_url import BotocoreSigner, Target, UrlPolicy
from serve_app.core.errors import InvalidParameter, UrlNotAllowed
from serve_app.settings import AudioUrlSettings

HOSTS = ("files.example.com", "*.cdn.example.com", "store.example.com:9000")


def policy(**more: object) -> UrlPolicy:
    values = {"enabled": True, "allowed_hosts": HOSTS, **more}
    return UrlPolicy(AudioUrlSettings.model_validate(values))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://files.example.com/a%20b.wav?x=1", ("files.example.com", 443, b"/a%20b.wav?x=1")),
        ("HTTPS://FILES.example.COM./a", ("files.example.com", 443, b"/a")),
        ("https://files.example.com:443/a", ("files.example.com", 443, b"/a")),
        ("https://eu.cdn.example.com/a", ("eu.cdn.example.com", 443, b"/a")),
        ("https://store.example.com:9000/a", ("store.example.com", 9000, b"/a")),
    ],
)
def test_listed_hosts_are_allowed(url: str, target: tuple[str, int, bytes]) -> None:
    assert policy().requested(url) == Target("https", *target)


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example.com/a",
        "ftp://files.example.com/a",
        "file:///etc/passwd",
        "//files.example.com/a",
        "files.example.com/a",
        "https://example.com/a",
        "https://files.example.com.evil.org/a",
        "https://evilfiles.example.com/a",
        "https://cdn.example.com/a",
        "https://evilcdn.example.com/a",
        "https://files.example.com:8443/a",
        "https://store.example.com/a",
        "https://user:secret@files.example.com/a",
        "https://files.example.com@evil.org/a",
        "https://evil.org#@files.example.com/a",
        "https://evil.org\\@files.example.com/a",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https:///a",
        "",
        "s3://bucket/key",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises((UrlNotAllowed, InvalidParameter)) as refusal:
        policy().requested(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["https://files.example.com/" + "a" * 9000, "https://f\n/a", "x\0"])
def test_what_is_no_url_is_a_wrong_parameter(url: str) -> None:
    with pytest.raises(InvalidParameter):
        policy().requested(url)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "https://calls.s3.eu-west-1.amazonaws.com/2024/a%20b.wav"),
        (
            {"s3_endpoint": "https://store.example.com:9000/"},
            "https://store.example.com:9000/calls/2024/a%20b.wav",
        ),
    ],
)
def test_s3_becomes_an_address_that_must_be_listed(more: dict[str, str], expected: str) -> None:
    values = {"s3_buckets": ("calls",), "s3_region": "eu-west-1", **more}
    listed = policy(allowed_hosts=("*.amazonaws.com", "store.example.com:9000"), **values)
    target = listed.requested("s3://calls/2024/a b.wav")
    assert f"https://{target.host}{'' if target.default_port else f':{target.port}'}" in expected
    assert expected.endswith(target.path.decode())
    with pytest.raises(UrlNotAllowed, match="host"):
        policy(allowed_hosts=("other.example.com",), **values).requested("s3://calls/a.wav")
    with pytest.raises(UrlNotAllowed, match="bucket"):
        listed.requested("s3://others/a.wav")


def test_bucket_with_dots_is_addressed_by_path() -> None:
    listed = policy(s3_buckets=("a.b",), allowed_hosts=("s3.us-east-1.amazonaws.com",))
    assert listed.requested("s3://a.b/k").path == b"/a.b/k"


def test_signed_address_of_a_bucket_is_listed_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id-of-nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    settings = AudioUrlSettings(
        enabled=True,
        allowed_hosts=("minio.example.com",),
        s3_buckets=("calls",),
        s3_endpoint="https://minio.example.com",
        s3_sign=True,
    )
    target = UrlPolicy(settings, BotocoreSigner(settings)).requested("s3://calls/a b.wav")
    assert target.host == "minio.example.com"
    assert target.path.startswith(b"/calls/a%20b.wav?X-Amz-Algorithm=AWS4-HMAC-SHA256")
    assert b"very-secret" not in target.path


@pytest.mark.parametrize(
    "values",
    [
        {"enabled": True},
        {"allowed_hosts": ["*"]},
        {"allowed_hosts": ["*.*"]},
        {"allowed_hosts": ["a/b"]},
        {"s3_endpoint": "minio"},
    ],
)
def test_settings_that_would_allow_everything_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AudioUrlSettings.model_validate(values)
