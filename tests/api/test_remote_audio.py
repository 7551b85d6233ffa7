"""Which URLs are fetched."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from serve_app.api.remote_audio import BotocoreSigner, BucketObject, Target, UrlPolicy
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
def test_invalid_url_is_a_wrong_parameter(url: str) -> None:
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


def store(s3_endpoint: str | None = "https://store.example.com:9000") -> UrlPolicy:
    """A store whose bucket `allowed` is listed, and nothing else."""
    return policy(
        allowed_hosts=("store.example.com:9000", "*.amazonaws.com"),
        s3_buckets=("allowed",),
        s3_endpoint=s3_endpoint,
    )


@pytest.mark.parametrize(
    "uri",
    [
        "s3://allowed/../other/secret.wav",
        "s3://allowed/./../other/secret.wav",
        "s3://allowed/a/../../other/secret.wav",
        "s3://allowed/%2e%2e/other/secret.wav",
        "s3://allowed/%2E./other/secret.wav",
        "s3://allowed/..%2fother/secret.wav",
        "s3://allowed/%252e%252e/other/secret.wav",
        "s3://allowed/%25252e%25252e/other/secret.wav",
        "s3://allowed/..\\other/secret.wav",
        "s3://allowed/..%5cother/secret.wav",
        "s3://allowed/a/..",
        "s3://allowed/.",
        "s3://../allowed/secret.wav",
        "s3://allowed%2f..%2fother/secret.wav",
        "s3:///other/secret.wav",
        "s3://other/secret.wav",
        "s3://ALLOWED/secret.wav",
        "s3://user@allowed/secret.wav",
        "s3://user:secret@allowed/secret.wav",
        "s3://allowed:9000/secret.wav",
        "s3://allowed@other/secret.wav",
        "s3://allowed?x/secret.wav",
        "s3://allowed#/../other/secret.wav",
        "s3://allowed/a.wav?versionId=1",
        "s3://allowed/a.wav#part",
        "s3://allowed/a%00.wav",
        "s3://allowed/a%0d%0aHost:%20other",
        "s3://allowed/a%zz.wav",
        "s3://allowed/a%",
        "s3://allowed/%ff.wav",
        "s3://allowed/" + "a" * 1025,
        "s3://allowed",
        "s3://allowed/",
        "s3:/allowed/a.wav",
        "s3a://allowed/a.wav",
    ],
)
@pytest.mark.parametrize("by_host", [False, True])
def test_only_objects_of_listed_buckets_can_be_named(uri: str, by_host: bool) -> None:
    checked = store(None) if by_host else store()
    with pytest.raises((UrlNotAllowed, InvalidParameter)) as refusal:
        checked.requested(uri)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://allowed/a/b.wav", b"/allowed/a/b.wav"),
        ("S3://allowed/a b.wav", b"/allowed/a%20b.wav"),
        ("s3://allowed/a%20b.wav", b"/allowed/a%20b.wav"),
        ("s3://allowed/%E5%BD%95.wav", b"/allowed/%E5%BD%95.wav"),
        ("s3://allowed/录.wav", b"/allowed/%E5%BD%95.wav"),
        ("s3://allowed/what%3F%231.wav", b"/allowed/what%3F%231.wav"),
        ("s3://allowed/50%25.wav", b"/allowed/50%25.wav"),
        ("s3://allowed/50%2525.wav", b"/allowed/50%2525.wav"),
        ("s3://allowed/..a/b..wav", b"/allowed/..a/b..wav"),
        ("s3://allowed/a//b.wav", b"/allowed/a//b.wav"),
        ("s3://allowed/a@b:c.wav", b"/allowed/a%40b%3Ac.wav"),
    ],
)
def test_key_reaches_the_store_as_it_was_checked(uri: str, path: bytes) -> None:
    assert store().requested(uri).path == path


@pytest.mark.parametrize(
    "url",
    [
        "https://store.example.com:9000/other/secret.wav",
        "https://store.example.com:9000//other/secret.wav",
        "https://store.example.com:9000/allowed/../other/secret.wav",
        "https://store.example.com:9000/allowed/%2e%2e/other/secret.wav",
        "https://store.example.com:9000/allowed%2f..%2fother/secret.wav",
        "https://store.example.com.:9000/other/secret.wav",
        "https://store.example.com:9000/",
    ],
)
def test_list_of_buckets_holds_for_the_store_s_own_addresses(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        store().requested(url)
    with pytest.raises(UrlNotAllowed):
        store().check(url)  # as the target of a redirect


@pytest.mark.parametrize(
    "host", ["s3.us-east-1.amazonaws.com", "s3.amazonaws.com", "s3-eu-west-1.amazonaws.com"]
)
def test_list_of_buckets_holds_for_aws_by_path(host: str) -> None:
    checked = store(None)
    assert checked.requested(f"https://{host}/allowed/a.wav").host == host
    with pytest.raises(UrlNotAllowed, match="bucket"):
        checked.requested(f"https://{host}/other/a.wav")


def test_store_s_own_address_of_a_listed_bucket_is_allowed() -> None:
    assert store().requested("https://store.example.com:9000/allowed/a.wav?sig=1").path == (
        b"/allowed/a.wav?sig=1"
    )
    below = policy(
        allowed_hosts=("files.example.com",),
        s3_buckets=("allowed",),
        s3_endpoint="https://files.example.com/s3",
    )
    assert below.requested("s3://allowed/a").path == b"/s3/allowed/a"
    for path in ("/allowed/a", "/s3allowed/a", "/s3/other/a"):
        with pytest.raises(UrlNotAllowed):
            below.requested(f"https://files.example.com{path}")


def test_signer_that_addresses_another_key_is_not_followed() -> None:
    class Careless:
        def url_of(self, found: BucketObject) -> str:
            return "https://files.example.com/other/secret.wav?X-Amz-Signature=1"

    settings = AudioUrlSettings(
        enabled=True, allowed_hosts=("files.example.com",), s3_buckets=("allowed",)
    )
    with pytest.raises(UrlNotAllowed):
        UrlPolicy(settings, Careless()).requested("s3://allowed/a.wav")


@pytest.mark.parametrize(
    "url",
    [
        "https://@files.example.com/a",
        "https://:@files.example.com/a",
        "https://files.example.com\\@evil.org/a",
        "https://files.example.com/\\evil.org",
        "https://files.example.com:0/a",
        "https://files.example.com:/a:@b@evil.org:443/",
        "https://2130706433/a",
        "https://0x7f000001/a",
        "https://0177.0.0.1/a",
        "https://127.1/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://[64:ff9b::7f00:1]/a",
        "https://localhost./a",
        "https://files.example.com%2eevil.org/a",
        "https://files.example.com%00.evil.org/a",
        "https://files。example。com.evil.org/a",
    ],
)
def test_hosts_in_disguise_are_refused(url: str) -> None:
    try:
        target = policy().requested(url)
    except (UrlNotAllowed, InvalidParameter):
        return
    # What is not refused leads to the listed host, whatever else the text looks like.
    assert (target.host, target.port) == ("files.example.com", 443)
    assert "evil" not in target.host


@pytest.mark.parametrize(
    "values",
    [
        {"s3_buckets": ["a/b"]},
        {"s3_buckets": [".."]},
        {"s3_buckets": [""]},
        {"s3_buckets": ["a..b"]},
        {"s3_endpoint": "https://user:secret@minio.example.com"},
        {"s3_endpoint": "https://minio.example.com/a/../b"},
        {"s3_endpoint": "https://minio.example.com?x=1"},
        {"s3_endpoint": "https://"},
    ],
)
def test_settings_that_could_be_read_in_two_ways_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AudioUrlSettings.model_validate(values)
