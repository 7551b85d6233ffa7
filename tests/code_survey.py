"""Prints how large the code is and how far a request travels in it.

    python -m tests.code_survey [--root OTHER_CHECKOUT]

Counts are of the files of a checkout. The way of a request is measured in this checkout only:
one recording is sent to the HTTP API, which runs the demo models in the same process, and every
call from one module of ours into another is seen.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import logging
import statistics
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import FrameType

HERE = Path(__file__).parent.parent
_SMALL_LINES = 40
_IMPORT_RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.code_survey", description=__doc__)
    parser.add_argument("--root", type=Path, default=HERE, help="Checkout to survey.")
    root = parser.parse_args().root.resolve()
    rows = dict(static_figures(root))
    if root == HERE:
        rows |= request_figures()
        rows["import time of the CLI, CPU s"] = f"{cli_import_s():.2f}"
    print("| figure | value |\n|---|---:|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


def static_figures(root: Path) -> Iterator[tuple[str, object]]:
    """Yields what can be read off the files."""
    paths = sorted((root / "serve_app").rglob("*.py"))
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in paths}
    trees = {path: ast.parse(path.read_text("utf-8")) for path in paths}
    importers = count_importers(root, trees)
    classes = [node for tree in trees.values() for node in ast.walk(tree) if is_dataclass(node)]
    yield "modules", len(paths)
    yield "lines of the median module", int(statistics.median(lines.values()))
    yield "lines of the largest module", max(lines.values())
    yield (
        f"modules under {_SMALL_LINES} lines",
        sum(count < _SMALL_LINES and path.stem != "__init__" for path, count in lines.items()),
    )
    yield "modules with one importer", sum(count == 1 for count in importers.values())
    yield "dataclasses", len(classes)
    yield "dataclasses without a method", sum(not has_method(node) for node in classes)
    yield "settings", (root / "docs" / "settings.md").read_text("utf-8").count("\n| `")
    yield "lines of serve_app", sum(lines.values())
    for folder in ("recipes", "loadtests", "tests"):
        found = list((root / folder).rglob("*.py"))
        yield f"lines of {folder}", sum(len(p.read_text("utf-8").splitlines()) for p in found)


def count_importers(root: Path, trees: dict[Path, ast.Module]) -> dict[str, int]:
    """Returns by how many modules of serve_app each of them is imported."""
    names = {path: module_name(root, path) for path in trees}
    importers: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    target = whole if whole in names.values() else node.module
                    importers[target].add(names[path])
    return {name: len(importers[name]) for name in names.values()}


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
    )


def has_method(node: ast.AST) -> bool:
    assert isinstance(node, ast.ClassDef)
    return any(isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) for item in node.body)


class CallRecorder:
    """Records which modules of ours call which; one thread at a time is enough for the counts."""

    def __init__(self, package: Path) -> None:
        self._prefix = f"{package}/"
        self.is_on = False
        self.files: set[str] = set()
        self.hops: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        callee = frame.f_code.co_filename
        if not self.is_on or event != "call" or not callee.startswith(self._prefix):
            return
        self.files.add(callee)
        above = frame.f_back
        while above is not None and not above.f_code.co_filename.startswith(self._prefix):
            above = above.f_back
        if above is not None and above.f_code.co_filename != callee:
            self.hops.add((above.f_code.co_filename, callee))


def request_figures() -> dict[str, object]:
    """Returns in how many files one request runs code, and across how many borders it calls."""
    import httpx

    from serve_app.api.limits import limits_of
    from serve_app.api.models import offer_of
    from serve_app.api.parameters import Offer
    from serve_app.api.routes import build_api
    from serve_app.api.service import TranscriptionJob
    from serve_app.core.records import (
        HotwordCheck,
        RecognitionOptions,
        RequestContext,
        StageReadiness,
    )
    from serve_app.inference.local import LocalTranscriber
    from serve_app.settings import Settings
    from serve_app.transcript.transcript import TranscriptEvent

    settings = Settings.model_validate({"profile": "demo"})

    class InProcess:
        """Serves the API by the pipeline of this process."""

        def __init__(self, pipeline: LocalTranscriber) -> None:
            self._pipeline = pipeline

        @property
        def offer(self) -> Offer:
            return offer_of(settings)

        async def check_hotwords(
            self, recognition_options: RecognitionOptions, context: RequestContext
        ) -> HotwordCheck:
            return self._pipeline.check_hotwords(recognition_options)

        def transcribe(self, job: TranscriptionJob) -> AsyncGenerator[TranscriptEvent]:
            return self._pipeline.transcribe(
                job.audio, job.stages, job.context.request_id, job.recognition_options
            )

        async def readiness(self) -> list[StageReadiness]:
            return []

    recorder = CallRecorder(HERE / "serve_app")

    async def send() -> None:
        audio = (HERE / "serve_app/packs/builtin/samples/clip.flac").read_bytes()
        async with LocalTranscriber(settings) as pipeline:
            app = build_api(InProcess(pipeline), limits_of(settings), logging.getLogger("survey"))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                for record in (False, True):
                    recorder.is_on = record
                    answer = await http.post(
                        "/v1/audio/transcriptions",
                        files={"file": audio},
                        data={"model": "whisper-1"},
                    )
                    answer.raise_for_status()
                recorder.is_on = False

    # Threads that are started later have it, too.
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        asyncio.run(send())
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    return {
        "files that one request runs code in": len(recorder.files),
        "borders between files that it calls across": len(recorder.hops),
    }


def cli_import_s() -> float:
    """Returns the CPU time that importing the command line takes, the median of a few."""
    script = "import time; import serve_app.cli.main; print(time.process_time())"
    bare = "import time; print(time.process_time())"

    def run(code: str) -> float:
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True
        )
        return float(found.stdout)

    times = [run(script) - run(bare) for _ in range(_IMPORT_RUNS)]
    return statistics.median(times)


if __name__ == "__main__":
    main()
