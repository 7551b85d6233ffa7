from __future__ import annotations

import pytest

from serve_app.batch.uris import has_scheme, plain_text, plain_uri, resolved


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:secret@bucket/a.wav", "s3://bucket/a.wav"),
        ("https://host/a.wav?X-Amz-Signature=s#f", "https://host/a.wav"),
        ("simplecache::s3://k:s@b/a", "simplecache::s3://b/a"),
        ("s3://bucket/a#1?2.wav", "s3://bucket/a#1?2.wav"),
        ("s3://bucket/a.wav?X-Amz-Date=1&X-Amz-Signature=s", "s3://bucket/a.wav"),
        ("az://calls/a.wav?sv=1&sig=secret", "az://calls/a.wav"),
        (
            "abfs://calls@account.dfs.core.windows.net/a",
            "abfs://calls@account.dfs.core.windows.net/a",
        ),
        ("abfs://u:secret@host/a", "abfs://host/a"),
        ("https://host/mail@home.wav", "https://host/mail@home.wav"),
        ("/data/what?.wav", "/data/what?.wav"),
        ("/data/\udcff.wav", "/data/?.wav"),
    ],
)
def test_shown_uri_has_no_secrets(uri: str, shown: str) -> None:
    assert plain_uri(uri) == shown


def test_urls_within_a_message_lose_their_secrets() -> None:
    message = "GET 'https://u:p@host/a?sig=1' failed, s3://k:s@b/x"
    assert plain_text(message) == "GET 'https://host/a' failed, s3://b/x"


@pytest.mark.parametrize(
    ("uri", "root", "expected"),
    [
        ("a/b.wav", "/data", "/data/a/b.wav"),
        ("../b.wav", "/data/lists", "/data/b.wav"),
        ("/abs/b.wav", "/data", "/abs/b.wav"),
        ("a/b.wav", "s3://bucket/lists", "s3://bucket/lists/a/b.wav"),
        ("s3://host/b.wav", "/data", "s3://host/b.wav"),
        ("../b.wav", "s3://bucket/lists", "s3://bucket/b.wav"),
        ("../../../b.wav", "s3://bucket/lists", "s3://bucket/b.wav"),
        ("b.wav", "memory:///bucket/lists", "memory:///bucket/lists/b.wav"),
    ],
)
def test_relative_uri_starts_at_the_root(uri: str, root: str, expected: str) -> None:
    assert resolved(uri, root) == expected


def test_drive_letter_is_not_a_scheme() -> None:
    assert not has_scheme("c:/data")
    assert has_scheme("zip::s3://a")
