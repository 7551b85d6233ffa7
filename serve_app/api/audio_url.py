"""Which URLs are fetched, and what s3:// means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote

import httpx

from serve_app.core.errors import ConfigurationError, InvalidParameter, UrlNotAllowed
from serve_app.settings import AudioUrlSettings

_MAX_URL_CHARS = 8192
_DEFAULT_PORTS = {"https": 443, "http": 80}
_PARAM = "audio_url"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that has passed the rules, in the parts that a connection needs.

    Attributes:
        scheme: "https" or "http".
        host: in lower case, internationalised names in their ASCII form.
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


class Signer(Protocol):
    """Gives a URL of a bucket that can be fetched for a short while."""

    def url_of(self, bucket: str, key: str) -> str: ...


class UrlPolicy:
    """Decides over every URL, also over each that a redirect leads to.

    Args:
        settings: what is allowed.
        signer: signs the URLs of buckets; None to leave them unsigned.
    """

    def __init__(self, settings: AudioUrlSettings, signer: Signer | None = None) -> None:
        self._settings = settings
        self._signer = signer

    def requested(self, url: str) -> Target:
        """Checks what a caller asks for; s3://bucket/key becomes the bucket's address.

        Raises:
            InvalidParameter: it is not a URL.
            UrlNotAllowed: it leads where this service does not fetch from.
        """
        if len(url) > _MAX_URL_CHARS or not url.isprintable():
            raise InvalidParameter(_PARAM, f"must be a URL of at most {_MAX_URL_CHARS} characters")
        return self.check(self._address_of_bucket(url) if url[:5].lower() == "s3://" else url)

    def check(self, url: str) -> Target:
        """Checks an address.

        Raises:
            InvalidParameter: it is not a URL.
            UrlNotAllowed: it leads where this service does not fetch from.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise InvalidParameter(_PARAM, "is not a URL") from None
        schemes = ("https", "http") if self._settings.allow_http else ("https",)
        if parsed.scheme not in schemes:
            raise UrlNotAllowed(f"it must begin with {' or '.join(schemes)}://")
        if parsed.userinfo:
            raise UrlNotAllowed("it has credentials in it")
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
        port = parsed.port or _DEFAULT_PORTS[parsed.scheme]
        target = Target(parsed.scheme, host, port, parsed.raw_path)
        if not host or not self._is_listed(target):
            raise UrlNotAllowed("its host is not among those that this service fetches from")
        return target

    def _is_listed(self, target: Target) -> bool:
        return any(_matches(entry, target) for entry in self._settings.allowed_hosts)

    def _address_of_bucket(self, url: str) -> str:
        bucket, _, key = url[5:].partition("/")
        if not key:
            raise InvalidParameter(_PARAM, "must be of the form s3://bucket/key")
        if bucket not in self._settings.s3_buckets:
            raise UrlNotAllowed("its bucket is not among those that this service fetches from")
        # What came as a URL's path may be encoded already; a key is plain.
        key = unquote(key)
        if self._signer is not None:
            return self._signer.url_of(bucket, key)
        path = quote(key)
        if self._settings.s3_endpoint is not None:
            return f"{self._settings.s3_endpoint}/{bucket}/{path}"
        region = self._settings.s3_region
        if "." in bucket:
            # The certificate of *.s3.amazonaws.com does not cover a name with dots.
            return f"https://s3.{region}.amazonaws.com/{bucket}/{path}"
        return f"https://{bucket}.s3.{region}.amazonaws.com/{path}"


class BotocoreSigner:
    """Signs with the credentials that botocore finds: environment, files, roles.

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

    def url_of(self, bucket: str, key: str) -> str:
        from botocore.exceptions import BotoCoreError

        try:
            url: str = self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=self._expires_s
            )
        except BotoCoreError as error:
            raise ConfigurationError(
                f"audio_url.s3_sign: {type(error).__name__}; are there credentials?"
            ) from None
        return url


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
