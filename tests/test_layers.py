"""The import lines that docs/architecture.md draws: the order of the folders, and no circles."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "serve_app"

# From the bottom up; a folder imports itself and those before it.
ORDER = (
    "core",
    "scheduling",
    "audio",
    "packs",
    "engines",
    "transcript",
    "speakers",
    "profiles",
    "settings",
    "inference",
    "modeltools",
    "planning",
    "client",
    "jobs",
    "live",
    "api",
    "metrics",
    "tracing",
    "ui",
    "deployments",
    "batch",
    "hosting",
    "app",
    "launch",
    "ops",
    "cli",
)
LEVEL = {name: level for level, name in enumerate(ORDER)}

# Which folders and modules may import a framework.
HOMES = {
    "torch": {"engines", "packs", "modeltools"},
    "funasr": set[str](),
    "onnx": {"modeltools/onnx_export"},
    "onnxruntime": {"engines"},
    "ray": {"app", "launch", "deployments", "hosting/node", "metrics", "batch"},
    "fastapi": {"api", "deployments", "ui"},
    "starlette": {"api", "ui"},
    "gradio": {"ui"},
    "opentelemetry": {"tracing"},
    "kubernetes": {"ops"},
    "sqlalchemy": {"jobs"},
    "alembic": {"jobs"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_names(path: Path) -> Iterator[str]:
    """Yields what a module imports, wherever in it: modules, or names in them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path: Path) -> set[str]:
    """Returns the modules of ours that a module imports."""
    names = (name for name in imported_names(path) if name.split(".")[0] == "serve_app")
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def check_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_modules_import_without_a_circle() -> None:
    check_no_circle({name: imported_modules(path) - {name} for name, path in MODULES.items()})


def test_folders_import_without_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if folder := folder_of(name):
            targets = {folder_of(target) for target in imported_modules(path)}
            graph.setdefault(folder, set()).update(targets - {folder, ""})
    check_no_circle(graph)


@pytest.mark.parametrize("name", [name for name in MODULES if folder_of(name)])
def test_module_imports_only_downwards(name: str) -> None:
    folder = folder_of(name)
    assert folder in LEVEL, f"{folder} has no place in the order"
    for target in imported_modules(MODULES[name]):
        if folder_of(target):
            assert LEVEL[folder_of(target)] <= LEVEL[folder], f"{name} imports {target}, above it"


@pytest.mark.parametrize("name", MODULES)
def test_framework_is_imported_only_in_its_home(name: str) -> None:
    relative = MODULES[name].relative_to(PACKAGE).with_suffix("").as_posix()
    for imported in imported_names(MODULES[name]):
        homes = HOMES.get(imported.split(".")[0])
        if homes is not None:
            assert any(relative == home or relative.startswith(f"{home}/") for home in homes), (
                f"{relative} imports {imported}"
            )


@pytest.mark.parametrize("name", [name for name in MODULES if folder_of(name) == "core"])
def test_core_imports_only_the_standard_library_and_numpy(name: str) -> None:
    allowed = sys.stdlib_module_names | {"numpy", "serve_app"}
    for imported in imported_names(MODULES[name]):
        assert imported.split(".")[0] in allowed, f"{name} imports {imported}"
