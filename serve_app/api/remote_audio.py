"""Decides which `audio_url` values may be fetched, and converts `s3://` URLs to HTTPS.

A URL is parsed once: the rules are checked on its parts, and the connection is made from the
same parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

import httpx

from serve_app.core.errors import ConfigurationError, InvalidParameter, UrlNotAllowed
from serve_app.settings import AudioUrlSettings
from serve_app.settings.audio_url import is_bucket_name

_MAX_URL_CHARS = 8192
_DEFAULT_PORTS = {"https": 443, "http": 80}
_PARAM = "audio_url"
# Hosts of AWS that serve every bucket of a region, as `s3.eu-west-1.amazonaws.com`.
_AWS_BY_PATH = re.compile(r"s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that has passed the rules, in the parts that a connection needs.

    Attributes:
        scheme: "https" or "http".
        host: in lower case, internationalized names in their ASCII form.
        port: never left out.
        path: with the query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    path: bytes

    @property
    def default_port(self) -> bool:
        return self.port == _DEFAULT_PORTS[self.scheme]

    @property
    def authority(self) -> bytes:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.default_port else f"{host}:{self.port}").encode("ascii")


class Signer(Protocol):
    """Returns a URL of an object in a bucket that can be fetched for a short time."""

    def url_of(self, found: BucketObject) -> str: ...


class UrlPolicy:
    """Checks every URL, including the targets of redirects.

    Args:
        settings: allowed hosts and buckets.
        signer: signs the URLs of buckets; None to leave them unsigned.
    """

    def __init__(self, settings: AudioUrlSettings, signer: Signer | None = None) -> None:
        self._settings = settings
        self._signer = signer

    def requested(self, url: str) -> Target:
        """Checks a caller's URL; converts s3://bucket/key to the bucket's URL.

        Raises:
            InvalidParameter: it is not a URL.
            UrlNotAllowed: this service does not fetch from that address.
        """
        if len(url) > _MAX_URL_CHARS or not url.isprintable():
            raise InvalidParameter(_PARAM, f"must be a URL of at most {_MAX_URL_CHARS} characters")
        if url[:5].lower() == "s3://":
            return self._target_of(parse_bucket_uri(url))
        return self.check(url)

    def check(self, url: str) -> Target:
        """Checks a URL.

        Raises:
            InvalidParameter: it is not a URL.
            UrlNotAllowed: this service does not fetch from that address.
        """
        target = self._parsed(url)
        bucket = self._bucket_in_path(target)
        if bucket is not None and bucket not in self._settings.s3_buckets:
            raise UrlNotAllowed("this service does not fetch from its bucket")
        return target

    def _parsed(self, url: str) -> Target:
        target = parse_target(url, ("https", "http") if self._settings.allow_http else ("https",))
        if not is_listed(target, self._settings.allowed_hosts):
            raise UrlNotAllowed("this service does not fetch from its host")
        return target

    def _bucket_in_path(self, target: Target) -> str | None:
        """Returns the bucket that an address names in its path.

        None where its host is no store of the settings', or there is no list of buckets.
        """
        settings = self._settings
        if not settings.s3_buckets:
            return None
        prefix = ""
        if settings.s3_endpoint is not None:
            store = urlsplit(settings.s3_endpoint)
            prefix = store.path
            port = store.port or _DEFAULT_PORTS[store.scheme]
            names_buckets = (store.hostname, port) == (target.host, target.port)
        else:
            names_buckets = _AWS_BY_PATH.fullmatch(target.host) is not None
        if not names_buckets:
            return None
        path = target.path.partition(b"?")[0].decode("ascii")
        if has_dot_segment(path):
            raise UrlNotAllowed("its path contains dot segments")
        decoded = unquote(path)
        if not decoded.startswith(f"{prefix}/"):
            return ""
        return decoded.removeprefix(prefix).lstrip("/").partition("/")[0]

    def _target_of(self, found: BucketObject) -> Target:
        if found.bucket not in self._settings.s3_buckets:
            raise UrlNotAllowed("this service does not fetch from its bucket")
        if self._signer is None:
            return self._parsed(self._address_of(found))
        target = self._parsed(self._signer.url_of(found))
        # The signer builds its own URL, which must point to the checked object.
        path = unquote(target.path.partition(b"?")[0].decode("ascii"))
        if not path.endswith(f"/{found.key}"):
            raise UrlNotAllowed("its key cannot be addressed in a URL")
        return target

    def _address_of(self, found: BucketObject) -> str:
        path = quote(found.key)
        if self._settings.s3_endpoint is not None:
            return f"{self._settings.s3_endpoint}/{found.bucket}/{path}"
        region = self._settings.s3_region
        if "." in found.bucket:
            # The certificate of *.s3.amazonaws.com does not cover a name with dots.
            return f"https://s3.{region}.amazonaws.com/{found.bucket}/{path}"
        return f"https://{found.bucket}.s3.{region}.amazonaws.com/{path}"


class BotocoreSigner:
    """Signs with botocore's credentials: environment, files, roles.

    Raises:
        ConfigurationError: botocore is not installed.
    """

    def __init__(self, settings: AudioUrlSettings) -> None:
        try:
            from botocore.config import Config
            from botocore.session import get_session
        except ImportError:
            raise ConfigurationError(
                "audio_url.s3_sign needs botocore: pip install 'paraserve[s3]'"
            ) from None
        self._expires_s = max(60, int(settings.timeout_s))
        self._client = get_session().create_client(
            "s3",
            region_name=settings.s3_region,
            endpoint_url=settings.s3_endpoint,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
            ),
        )

    def url_of(self, found: BucketObject) -> str:
        from botocore.exceptions import BotoCoreError

        try:
            url: str = self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": found.bucket, "Key": found.key},
                ExpiresIn=self._expires_s,
            )
        except BotoCoreError as error:
            raise ConfigurationError(
                f"audio_url.s3_sign: {type(error).__name__}; check the credentials"
            ) from None
        return url


def parse_target(url: str, schemes: Sequence[str]) -> Target:
    """Parses a URL that names a host, and nothing but a host, as its authority.

    Args:
        url: as a caller gave it.
        schemes: that are accepted.

    Raises:
        InvalidParameter: it is not a URL.
        UrlNotAllowed: it has another scheme, credentials, a backslash or no host.
    """
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise InvalidParameter(_PARAM, "is not a URL") from None
    if parsed.scheme not in schemes:
        raise UrlNotAllowed(f"it must begin with {' or '.join(schemes)}://")
    # httpx drops an empty user name when it parses.
    if parsed.userinfo or "@" in _authority_in(url):
        raise UrlNotAllowed("it contains credentials")
    if "\\" in url:
        raise UrlNotAllowed("it contains a backslash")
    if not host:
        raise UrlNotAllowed("it names no host")
    port = _DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
    return Target(parsed.scheme, host, port, parsed.raw_path)


def is_listed(target: Target, entries: Iterable[str]) -> bool:
    """Returns whether an entry names the host: `host`, `host:port`, `*.domain`."""
    return any(_matches(entry, target) for entry in entries)


def _authority_in(url: str) -> str:
    """Returns the authority: the text between `//` and the first character that can end it."""
    rest = url.partition("//")[2]
    ends = [at for mark in "/?#\\" if (at := rest.find(mark)) >= 0]
    return rest[: min(ends, default=len(rest))]


def _matches(entry: str, target: Target) -> bool:
    name, separator, port = entry.rpartition(":")
    if separator and port.isdecimal():
        if int(port) != target.port:
            return False
    else:
        name = entry
        if not target.default_port:
            return False
    if name.startswith("*."):
        return target.host.endswith(name[1:]) and len(target.host) > len(name[1:])
    return target.host == name


_MAX_KEY_BYTES = 1024
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object in a bucket.

    Attributes:
        bucket: its name, without dot segments or special characters of URLs.
        key: as the store has it, not percent-encoded; without `.` and `..` as a segment, so
            that no one who resolves paths can make another bucket or key of it.
    """

    bucket: str
    key: str


def parse_bucket_uri(uri: str) -> BucketObject:
    """Parses `s3://bucket/key`; the key is percent-decoded once.

    A `?`, `#` or `%` that belongs to the key is written as `%3F`, `%23` or `%25`.

    Args:
        uri: starts with `s3://`, in upper or lower case.

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
