"""Paths and URLs of recordings and results: parsing, and display without secrets."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from serve_app.core.storage import PROTOCOLS

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+._\-]+)(::|://)")
_CHAIN = re.compile(r"^[A-Za-z][A-Za-z0-9+._\-]+::|::[A-Za-z][A-Za-z0-9+._\-]+://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+._\-]+://[^\s'\"<>]+")
_SIGNATURE = re.compile(
    r"\?(?=(.*[&;])?[\w.-]*(signature|sig|token|credential|secret|password|keyid)=).*",
    re.IGNORECASE | re.DOTALL,
)
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


class UnusableUri(ValueError):
    """A path or URL is not supported; the message says why."""


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed path or URL.

    Attributes:
        protocol: one of the values of `PROTOCOLS`.
        uri: for the file system of that protocol.
    """

    protocol: str
    uri: str


def has_scheme(uri: str) -> bool:
    """Returns whether this is a URL, possibly a chained one, and not a path."""
    return _SCHEME.match(uri) is not None


def parse_uri(uri: str) -> Location:
    """Parses a path or URL.

    Percent signs, `?`, `#` and `::` in a path or key are literal.

    Raises:
        UnusableUri: its protocol is not one of `PROTOCOLS`, it chains protocols, or it is
            ambiguous.
    """
    if "\0" in uri:
        raise UnusableUri("it contains a NUL")
    match = _SCHEME.match(uri)
    if match is None:
        return Location("file", uri)
    if _CHAIN.search(uri):
        raise UnusableUri(f"{plain_uri(uri)}: protocols cannot be chained with ::")
    protocol = PROTOCOLS.get(match[1].lower())
    if protocol is None:
        known = ", ".join(f"{name}://" for name in ("file", "s3", "gs", "az", "abfs"))
        raise UnusableUri(f"{match[1]}:// is not supported; use a path or one of {known}")
    rest = uri[match.end() :]
    if protocol == "file":
        if not rest.startswith("/"):
            raise UnusableUri("a file:// URL must name an absolute path, as in file:///data/a.wav")
        return Location("file", rest)
    if protocol != "memory":
        _check_bucket_url(protocol, rest)
    if {".", ".."} & set(rest.split("/")):
        raise UnusableUri("its key has . or .. as a segment")
    if protocol == "s3" and "?versionId=" in rest:
        # s3fs would read the newest version instead.
        raise UnusableUri("versions of an object are not supported")
    return Location(protocol, f"{match[1].lower()}://{rest}")


def _check_bucket_url(protocol: str, rest: str) -> None:
    bucket = rest.partition("/")[0]
    if not bucket:
        raise UnusableUri("it names no bucket")
    # abfs://container@account.dfs.core.windows.net/path is Azure's own way to name an account.
    allowed = r"[\w.\-]+(@[\w.\-]+)?" if protocol == "abfs" else r"[\w.\-]+"
    if not re.fullmatch(allowed, bucket):
        raise UnusableUri(
            "its bucket name has invalid characters; credentials belong in the environment, not "
            "in a URL"
        )


def resolved(uri: str, root: str) -> str:
    """Resolves a URI of a manifest; relative ones refer to the root of the manifest.

    A relative URI cannot leave the bucket of the root.

    Args:
        uri: as in the manifest.
        root: an absolute path or a URL.
    """
    if has_scheme(uri) or uri.startswith("/"):
        return uri
    match = _SCHEME.match(root)
    if match is None:
        return posixpath.normpath(posixpath.join(root, uri))
    scheme = root[: match.end()]
    rest = root[match.end() :]
    slashes = rest[: len(rest) - len(rest.lstrip("/"))]  # memory:///folder
    bucket, _, folder = rest.lstrip("/").partition("/")
    key = posixpath.normpath(posixpath.join("/", folder, uri)).lstrip("/")
    return f"{scheme}{slashes}{bucket}/{key}"


def plain_uri(uri: str) -> str:
    """Returns a URI that may be shown: without user and password, query and fragment.

    Signed URLs carry their signature in the query. Of a bucket's URL `?` and `#` are part of
    the key and stay, unless what follows looks like a signature. Paths are returned as they
    are; what is not Unicode in a file's name becomes a question mark.
    """
    readable = uri.encode("utf-8", "replace").decode("utf-8")
    if "://" not in readable:
        return readable
    shown = _USERINFO.sub(_without_secret, readable)
    match = _SCHEME.match(readable)
    if match is not None and match[2] == "://" and match[1].lower() in PROTOCOLS:
        return _SIGNATURE.sub("", shown)
    return re.split(r"[?#]", shown, maxsplit=1)[0]


def _without_secret(userinfo: re.Match[str]) -> str:
    """Keeps Azure's container@account, which is no secret."""
    scheme = userinfo.string[: userinfo.start()].rpartition("://")[0]
    is_container = scheme.lower() in ("az", "abfs", "abfss") and ":" not in userinfo[0]
    return userinfo[0] if is_container else ""


def plain_text(text: str) -> str:
    """Returns a message whose URLs are without secrets."""
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return _URL.sub(lambda match: plain_uri(match.group()), readable)
