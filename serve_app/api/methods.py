"""The methods that each path supports, for the header `Allow`.

It is also needed where the routes are not known: request heads are checked in Ray's proxies.
"""

from __future__ import annotations

import re

from starlette.types import Scope

_READ = ("GET", "HEAD")

# A test compares these with the routes.
_METHODS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(path), methods)
    for path, methods in (
        ("/v1/audio/transcriptions", ("POST",)),
        ("/v1/jobs", (*_READ, "POST")),
        ("/v1/jobs/[^/]+", ("DELETE", *_READ)),
        ("/v1/jobs/[^/]+/(result|events)", _READ),
        ("/v1/jobs/[^/]+/(cancel|webhook)", ("POST",)),
        ("/v1/uploads", ("OPTIONS", "POST")),
        ("/v1/uploads/[^/]+", ("DELETE", *_READ, "PATCH")),
        ("/|/docs|/docs/[^/]+|/openapi.json|/health|/healthz|/readyz", _READ),
        ("/v1/usage|/v1/models|/v1/models/.+", _READ),
    )
)
_ANY = ("DELETE", *_READ, "OPTIONS", "PATCH", "POST")


def allowed_methods(path: str) -> str:
    """Returns the value of `Allow` for a path; for an unknown one, all methods of the service.

    Args:
        path: without the prefix of the service, as `path_of` returns it.
    """
    path = path.rstrip("/") or "/"
    methods = next((methods for known, methods in _METHODS if known.fullmatch(path)), _ANY)
    return ", ".join(methods)


def path_of(scope: Scope) -> str:
    """Returns the path of a request without the prefix of the service."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
