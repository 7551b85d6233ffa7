"""The wheel: what is in it, how large it is, and that its commands start."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_BYTES = 12 * 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def content(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel) as opened:
        yield opened


def test_wheel_has_the_version_of_the_project(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert wheel.name == f"paraserve-{project['version']}-py3-none-any.whl"


def test_wheel_holds_every_file_of_the_package_that_git_knows(content: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "serve_app"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    packed = {name for name in content.namelist() if ".dist-info/" not in name}
    assert packed == set(listed.stdout.splitlines())


def test_wheel_holds_neither_recipes_nor_tests_and_its_license(content: zipfile.ZipFile) -> None:
    folders = {name.split("/")[0] for name in content.namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == {"serve_app"}
    names = {Path(name).name for name in content.namelist() if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE"} <= names


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MAX_BYTES


def test_commands_of_the_wheel_start(wheel: Path, content: zipfile.ZipFile, tmp_path: Path) -> None:
    (name,) = (name for name in content.namelist() if name.endswith("entry_points.txt"))
    commands = ConfigParser()
    commands.read_string(content.read(name).decode())
    assert set(commands["console_scripts"]) == {"paraserve", "paraserve-haproxy"}
    content.extractall(tmp_path)
    for target in commands["console_scripts"].values():
        module, function = target.split(":")
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop()); import serve_app; "
            f"from {module} import {function}; print(serve_app.__file__)"
        )
        found = subprocess.run(
            [sys.executable, "-I", "-c", script, str(tmp_path)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert Path(found.stdout.strip()).is_relative_to(tmp_path)
