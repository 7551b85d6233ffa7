"""No profile is shipped that no test serves; without a cluster."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from serve_app.settings import profile_names
from tests.service import test_models


def served_by_name() -> Iterator[str]:
    """Yields the profiles that a service test names in the settings of an application."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    named = isinstance(key, ast.Constant) and key.value == "profile"
                    if named and isinstance(value, ast.Constant):
                        yield str(value.value)


def test_every_profile_is_served_in_a_test() -> None:
    assert {*served_by_name(), *test_models.PROFILES} == set(profile_names())
