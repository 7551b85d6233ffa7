"""The import lines that docs/design.md draws."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "serve_app"

# From the bottom up; a layer may import itself and what is below it.
LAYERS = (
    {"core"},
    {"engines", "audio", "packs"},
    {"profiles", "client", "cli_console", "cli_lazy", "output_files"},
    {"settings"},
    {"pipeline", "planning"},
    {"api"},
    {"metrics", "tracing", "ui"},
    {"deployments"},
    {"batch"},
    {"hosting"},
    {"app", "cluster", "demo", "memory_bench", "ops", "serving", "transcribing"},
    {"cli_options"},
    {"cli", "cli_batch", "cli_bench", "cli_cluster", "cli_keys", "cli_models", "cli_plan"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Which parts may import a framework; the recipe trains with FunASR itself.
HOMES = {
    "torch": {"engines", "packs"},
    "funasr": {"packs/recipe"},
    "onnx": {"packs/export"},
    "onnxruntime": {"engines"},
    "ray": {"app", "cluster", "deployments", "hosting/node", "metrics", "batch"},
    "fastapi": {"api", "deployments", "ui"},
    "starlette": {"api", "ui"},
    "gradio": {"ui"},
    "opentelemetry": {"tracing"},
    "kubernetes": {"ops"},
}


def modules() -> list[Path]:
    return sorted(
        path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
    )


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            yield module
            if module == "serve_app":
                yield from (f"serve_app.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_downwards(path: Path) -> None:
    part = part_of(path)
    assert part in LEVEL, f"{part} has no layer"
    for name in imported_modules(path):
        if not name.startswith("serve_app."):
            continue
        target = name.split(".")[1]
        if target.startswith("__"):
            continue
        assert LEVEL[target] <= LEVEL[part], f"{path.name} imports {name}, which is above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_framework_is_imported_only_in_its_home(path: Path) -> None:
    relative = path.relative_to(PACKAGE).with_suffix("").as_posix()
    for name in imported_modules(path):
        homes = HOMES.get(name.split(".")[0])
        if homes is not None:
            assert any(relative == home or relative.startswith(f"{home}/") for home in homes), (
                f"{relative} imports {name}"
            )


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.stem
)
def test_core_imports_only_the_standard_library_and_numpy(path: Path) -> None:
    allowed = sys.stdlib_module_names | {"numpy", "serve_app"}
    for name in imported_modules(path):
        assert name.split(".")[0] in allowed, f"core/{path.name} imports {name}"
