"""All error classes, for tests that hold for each of them."""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.core.errors import ParaserveError


def _descendants(root: type[ParaserveError]) -> Iterator[type[ParaserveError]]:
    yield root
    for child in root.__subclasses__():
        yield from _descendants(child)


EVERY_ERROR = sorted(set(_descendants(ParaserveError)), key=repr)
