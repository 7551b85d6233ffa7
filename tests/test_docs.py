"""What is written is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.main import app

ROOT = Path(__file__).parent.parent


def generated(name: str, function: str) -> str:
    """Returns what a generator in docs/ would write."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(getattr(module, function)())


@pytest.mark.parametrize("page", ["settings", "metrics"])
def test_generated_page_is_that_of_the_code(page: str) -> None:
    expected = generated(f"generate_{page}", f"{page}_page")
    written = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert written == expected, f"run: python docs/generate_{page}.py"


def readme_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    return sorted({match for block in blocks for match in re.findall(r"paraserve ([a-z]+)", block)})


@pytest.mark.parametrize("command", readme_commands())
def test_command_of_the_readme_exists(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text("utf-8")))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", *(str(p) for p in Path("docs").rglob("*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"
