"""What is written is true."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from serve_app.api.fields import TEXT_FIELDS
from serve_app.batch.arguments import parse_arguments
from serve_app.cli.main import app
from serve_app.core.errors import ParaserveError
from serve_app.hosting import haproxy_launcher
from serve_app.settings import Settings
from tests.doc_pages import (
    PAGES,
    ROOT,
    Command,
    cited_files,
    cited_modules,
    cited_settings,
    commands_of,
    set_arguments,
    text_of,
)

COMMANDS = tuple(
    sorted({str(each): each for page in PAGES for each in commands_of(page)}.values(), key=str)
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def generated(module_name: str, function: str) -> str:
    """Returns what a generator in docs/ would write."""
    spec = importlib.util.spec_from_file_location(module_name, ROOT / "docs" / f"{module_name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(getattr(module, function)())


@pytest.mark.parametrize(
    ("page", "module_name"),
    [
        ("settings", "generate_settings"),
        ("metrics", "generate_metrics"),
        ("api", "generate_api"),
        ("errors", "generate_api"),
        ("cli", "generate_cli"),
    ],
)
def test_generated_page_is_that_of_the_code(page: str, module_name: str) -> None:
    expected = generated(module_name, f"{page}_page")
    assert text_of(f"docs/{page}.md") == expected, f"run: python docs/{module_name}.py"


@pytest.mark.parametrize("name", sorted(TEXT_FIELDS))
def test_form_field_is_on_the_page_of_the_api(name: str) -> None:
    assert f"`{name}`" in text_of("docs/api.md")


def test_every_error_code_is_on_the_page_of_errors() -> None:
    page = text_of("docs/errors.md")
    pending: list[type[ParaserveError]] = ParaserveError.__subclasses__()
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind.__module__ == ParaserveError.__module__:
            assert f"`{kind.code}`" in page, kind


def test_error_codes_of_the_proxy_are_on_the_page_of_errors() -> None:
    page = text_of("docs/errors.md")
    values = vars(haproxy_launcher).values()
    answers = [one for value in values if isinstance(value, tuple) for one in value]
    codes = {one.code for one in answers if isinstance(one, haproxy_launcher.ProxyError)}
    assert codes
    assert [code for code in codes if f"`{code}`" not in page] == []


def test_readme_fits_on_two_screens() -> None:
    assert len(text_of("README.md").splitlines()) <= 150


def test_glossary_has_at_most_forty_words() -> None:
    terms = [line for line in text_of("docs/glossary.md").splitlines() if line.startswith("| **")]
    assert 0 < len(terms) <= 40


def test_index_leads_to_every_page() -> None:
    index = text_of("docs/index.md")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert [page for page in sorted(pages) if f"({page})" not in index] == []


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text_of(page)):
        linked = path.parent / target if target else path
        assert linked.exists(), f"{page} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors_of(linked), f"{page} links to {target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    missing = [
        cited
        for cited in sorted(cited_files(page))
        if re.match(r"(serve_app|tests|docs|deploy|loadtests|recipes)/", cited)
        and not (ROOT / cited).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_a_page_names_exist(page: str) -> None:
    assert [name for name in sorted(cited_modules(page)) if not is_importable(name)] == []


def is_importable(name: str) -> bool:
    """Says whether a dotted name is a module, or something in one."""
    module_name, _, attribute = name.rpartition(".")
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    try:
        return hasattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_a_page_names_exist(page: str) -> None:
    sections = frozenset(
        name for name, field in Settings.model_fields.items() if is_section(field.annotation)
    )
    names = cited_settings(page, sections)
    assert [name for name in sorted(names) if not (is_setting(name) or is_value(name))] == []


def is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_setting(name: str) -> bool:
    """Says whether a dotted name is a setting, or a section of them."""
    model: Any = Settings
    for part in name.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return False
        annotation = fields[part].annotation
        choices = getattr(annotation, "__args__", (annotation,))
        model = next((one for one in choices if is_section(one)), None)
    return True


def is_value(name: str) -> bool:
    """Says whether a dotted name is a value of the chart."""
    node: Any = yaml.safe_load(text_of("deploy/helm/paraserve/values.yaml"))
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def test_extras_that_the_pages_name_exist() -> None:
    named = {
        extra
        for page in PAGES
        for extras in re.findall(r"(?:paraserve|\.|whl)\[([a-z0-9,]+)\]", text_of(page))
        for extra in extras.split(",")
    }
    assert named
    assert named <= PROJECT["optional-dependencies"].keys()


def test_version_is_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert f'__version__ = "{version}"' in text_of("serve_app/__init__.py")
    assert f"\nappVersion: {version}\n" in text_of("deploy/helm/paraserve/Chart.yaml")
    assert re.search(rf"^## {re.escape(version)} ", text_of("CHANGELOG.md"), re.M)
    for path in ("deploy/Dockerfile", "deploy/ray-cluster.yaml", *PAGES):
        for named in re.findall(r"paraserve[:-](\d+\.\d+\.\d+)", text_of(path)):
            assert named == version, path


def given(program: str) -> list[Any]:
    return [pytest.param(each, id=str(each)) for each in COMMANDS if each.words[0] == program]


@pytest.mark.parametrize("command", given("paraserve"))
def test_paraserve_takes_the_command(command: Command) -> None:
    """Parses the words without running anything: commands, options, number of arguments."""
    group: Any = get_command(app)
    words = list(command.words[1:])
    context = group.make_context("paraserve", [], resilient_parsing=True)
    current = group
    while words and hasattr(current, "resolve_command") and not words[0].startswith("-"):
        name, current, words = current.resolve_command(context, words)
        context = current.make_context(name, [], resilient_parsing=True, parent=context)
    context.resilient_parsing = False
    values, rest, _ = current.make_parser(context).parse_args(words)
    assert not rest, f"{rest} are not understood"
    if command.is_complete and "--help" not in words:
        missing = [one.name for one in current.params if one.required and not values.get(one.name)]
        assert missing == []
    check_settings(command)


def check_settings(command: Command) -> None:
    unknown = [name for name in set_arguments(command.words) if not is_setting(name)]
    assert unknown == []


class _Parsed(Exception):
    """The arguments were understood."""


def module_of(command: Command) -> tuple[str, list[str]]:
    """Returns the module that a command runs, and its arguments."""
    _, option, name, *arguments = command.words
    assert option == "-m"
    if name == "loadtests" and arguments and not arguments[0].startswith("-"):
        return f"loadtests.{arguments[0].replace('-', '_')}", arguments[1:]
    return name, arguments


@pytest.mark.parametrize("command", given("python"))
def test_python_takes_the_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    if len(command.words) < 3 or command.words[1] != "-m":
        for word in command.words[1:]:
            assert word.startswith("-") or (ROOT / word).exists(), word
        return
    module_name, arguments = module_of(command)
    # Stand-ins for paths that only the reader knows.
    if not command.is_complete and not arguments:
        assert is_importable(module_name)
        return
    if module_name == "serve_app.batch":
        parse_arguments(arguments, None)
        check_settings(command)
        return
    if not module_name.startswith("loadtests."):
        assert importlib.util.find_spec(module_name) is not None
        return
    parse_only(module_name, arguments, monkeypatch)


def parse_only(module_name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls `main` of a load test up to where it has parsed its arguments."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        real(parser, *args, **kwargs)
        raise _Parsed

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"{module_name} begins before it has parsed its arguments")

    module = importlib.import_module(module_name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{module_name}.__main__")
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [module_name, *arguments])
    monkeypatch.setattr(asyncio, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(_Parsed):
        module.main()


@pytest.mark.parametrize("command", given("make"))
def test_make_has_the_target(command: Command) -> None:
    targets = set(re.findall(r"^([.a-z0-9-]+):", text_of("Makefile"), re.M))
    named = {word for word in command.words[1:] if "=" not in word}
    assert named <= targets


@pytest.mark.parametrize("command", given("pytest"))
def test_pytest_knows_the_marker(command: Command) -> None:
    words = command.words
    marked = [following for word, following in pairwise(words) if word == "-m"]
    for marker in marked:
        assert re.search(rf'"{marker}: ', text_of("pyproject.toml"))
