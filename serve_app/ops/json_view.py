"""JSON from elsewhere, read without trusting its shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from serve_app.core.errors import ClusterError


@dataclass(frozen=True, slots=True)
class JsonView:
    """A value of a JSON document. Missing values and values of another type read as empty."""

    value: object = None

    def at(self, *path: str) -> JsonView:
        """Returns the value under the keys; an empty view if there is none."""
        value = self.value
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return JsonView(value)

    def pairs(self) -> Iterator[tuple[str, JsonView]]:
        """Yields the keys and values of a mapping."""
        if isinstance(self.value, dict):
            for key, value in self.value.items():
                yield str(key), JsonView(value)

    def each(self) -> Iterator[JsonView]:
        """Yields the entries of a list."""
        if isinstance(self.value, list):
            for value in self.value:
                yield JsonView(value)

    def text(self, default: str = "") -> str:
        if isinstance(self.value, str):
            return self.value
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return str(self.value) if is_number else default

    def number(self, default: float = 0.0) -> float:
        """Returns a number, also from text."""
        try:
            return float(self.text())
        except ValueError:
            return default

    def count(self, default: int = 0) -> int:
        return int(self.number(default))

    @property
    def is_true(self) -> bool:
        return self.value is True

    @property
    def is_there(self) -> bool:
        return self.value is not None

    def mapping(self) -> dict[str, object]:
        """Returns a copy of the mapping; empty if the value is none."""
        return {key: value.value for key, value in self.pairs()}


def read_yaml(text: str, what: str) -> JsonView:
    """Returns a YAML document.

    Raises:
        ClusterError: the text is not YAML.
    """
    try:
        return JsonView(yaml.safe_load(text))
    except yaml.YAMLError:
        raise ClusterError(f"{what} is not YAML: correct it with a helm upgrade") from None
