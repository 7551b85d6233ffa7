"""Which releases of other packages are taken."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
ALL = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("fsspec", "2026.4.0"),
        ("s3fs", "2026.4.0"),
        ("torch", "2.9.1"),
        ("starlette", "1.0.0"),
        ("python-multipart", "0.0.20"),
        ("python-multipart", "0.0.30"),
        ("h11", "0.14.0"),
        ("aiohttp", "3.14.2"),
        ("av", "17.0.1"),
        ("urllib3", "2.6.3"),
        ("onnx", "1.20.1"),
        ("gradio", "6.15.0"),
        ("pyarrow", "14.0.0"),
        ("jinja2", "3.1.5"),
    ],
)
def test_release_with_a_known_hole_is_not_taken(name: str, bad: str) -> None:
    bounds = [each for each in ALL if each.name == name]
    assert bounds
    assert not any(each.specifier.contains(bad) for each in bounds)


@pytest.mark.parametrize("requirement", ALL, ids=str)
def test_what_is_installed_is_within_the_bounds(requirement: Requirement) -> None:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed")
    assert requirement.specifier.contains(installed, prereleases=True)
