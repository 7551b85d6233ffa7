"""The root of the tree."""

from __future__ import annotations


class ParaserveError(Exception):
    """Root of the tree; never raised itself."""

    code = "internal_error"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
