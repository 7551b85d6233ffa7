"""Visitors of the page, identified by a cookie that the page issues."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

_COOKIE = "paraserve_visitor"
_SECRET = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Visitor:
    """One browser.

    Attributes:
        id: derived from the secret in its cookie; nobody else can present it.
    """

    id: str

    def session(self, name: str) -> str:
        """Returns the name under which Gradio keeps one of this visitor's open pages.

        Browsers choose `name` with a weak random generator. With the visitor's secret in
        it, a guessed name leads to the guesser's own session and never to another's.
        """
        return hashlib.sha256(f"{self.id}/{name}".encode()).hexdigest()


def visitor_of(headers: Headers) -> Visitor | None:
    """Returns who sent a request; None without a cookie of this page."""
    secret = cookie_parser(headers.get("cookie", "")).get(_COOKIE, "")
    if not _SECRET.fullmatch(secret):
        return None
    return Visitor(hashlib.sha256(secret.encode()).hexdigest())


def new_cookie(scope: Scope) -> str:
    """Returns a `Set-Cookie` header that makes a browser a visitor until it is closed.

    Without a `Path` it holds for the page alone, whatever prefix a proxy puts before it.
    Scripts cannot read it, and other sites' requests do not carry it.
    """
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{_COOKIE}={secrets.token_hex(32)}; HttpOnly; SameSite=Lax{secure}"
