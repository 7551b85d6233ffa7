"""`s3://bucket/key`, taken apart once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from serve_app.core.errors import InvalidParameter
from serve_app.settings.audio_url import is_bucket_name

_PARAM = "audio_url"
_MAX_KEY_BYTES = 1024
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object in a bucket.

    Attributes:
        bucket: its name, without dot segments or anything that has a meaning in a URL.
        key: as the store has it, not percent-encoded; without `.` and `..` as a segment, so
            that no one who resolves paths can make another bucket or key of it.
    """

    bucket: str
    key: str


def parse_bucket_uri(uri: str) -> BucketObject:
    """Takes `s3://bucket/key` apart; the key is percent-decoded, once.

    A `?`, `#` or `%` that belongs to the key is written as `%3F`, `%23` or `%25`.

    Args:
        uri: begins with `s3://`, in any case.

    Raises:
        InvalidParameter: it does not name an object of a bucket, or not in one way only.
    """
    bucket, _, written = uri[len("s3://") :].partition("/")
    if not is_bucket_name(bucket) or not written:
        raise InvalidParameter(_PARAM, "must be of the form s3://bucket/key")
    if "?" in written or "#" in written:
        raise InvalidParameter(_PARAM, "has a ? or # in its key; write %3F or %23")
    if _BROKEN_ESCAPE.search(written):
        raise InvalidParameter(_PARAM, "has a % in its key that encodes nothing; write %25")
    try:
        key = unquote_to_bytes(written).decode()
    except UnicodeDecodeError:
        raise InvalidParameter(_PARAM, "has a key that is not UTF-8") from None
    if not key.isprintable() or "\\" in key:
        raise InvalidParameter(_PARAM, "has control characters or backslashes in its key")
    if has_dot_segment(key):
        raise InvalidParameter(_PARAM, "has . or .. as a segment of its key")
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise InvalidParameter(_PARAM, f"has a key of more than {_MAX_KEY_BYTES} bytes")
    return BucketObject(bucket, key)


def has_dot_segment(path: str) -> bool:
    """Returns whether a segment is `.` or `..`, however often it is percent-encoded."""
    while True:
        if any(segment in (".", "..") for segment in re.split(r"[/\\]", path)):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
