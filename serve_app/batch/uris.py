"""Where recordings lie: paths and URLs, and how they may be shown."""

from __future__ import annotations

import posixpath
import re

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+(::|://)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://[^\s'\"<>]+")
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


def has_scheme(uri: str) -> bool:
    """True for a URL, also for fsspec's chained ones; a path has none."""
    return _SCHEME.match(uri) is not None


def resolved(uri: str, root: str) -> str:
    """Returns where a URI of a manifest leads: relative ones start at the manifest's root.

    Args:
        uri: as it was written.
        root: an absolute path or a URL.
    """
    if has_scheme(uri) or uri.startswith("/"):
        return uri
    if not has_scheme(root):
        return posixpath.normpath(posixpath.join(root, uri))
    return f"{root.rstrip('/')}/{posixpath.normpath(uri)}"


def plain_uri(uri: str) -> str:
    """Returns a URI that may be shown: without user, password, query and fragment.

    Signed URLs carry their signature in the query. Paths are returned as they are; what
    is not Unicode in a file's name becomes a question mark.
    """
    readable = uri.encode("utf-8", "replace").decode("utf-8")
    if "://" not in readable:
        return readable
    return re.split(r"[?#]", _USERINFO.sub("", readable), maxsplit=1)[0]


def plain_text(text: str) -> str:
    """Returns a message in which every URL is one that may be shown."""
    readable = text.encode("utf-8", "replace").decode("utf-8")
    return _URL.sub(lambda match: plain_uri(match.group()), readable)
