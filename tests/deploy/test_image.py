"""The image holds what the program may be told to do with it."""

from __future__ import annotations

import re
import tomllib
from typing import get_args

from serve_app.settings import Settings, profile_names
from serve_app.settings.stages import RecognizerSettings
from tests.deploy.charting import ROOT

# What runs packs, and the extra that brings it.
ENGINES = {"paraformer": None, "onnx": "onnx", "whispercpp": "whisper", "hybrid": "whisper"}
# What is run by developers, and by operators from their own machines.
NOT_IN_THE_IMAGE = {"ops", "funasr", "test", "bench", "deploy", "dev", "compat", "conformance"}


def extras_of_the_image() -> set[str]:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    (default,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, flags=re.MULTILINE)
    assert 'pip install ".[${EXTRAS}]"' in text
    return set(default.split(","))


def extras_of_the_project() -> dict[str, list[str]]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras: dict[str, list[str]] = content["project"]["optional-dependencies"]
    return extras


def test_every_engine_has_its_place_in_the_table() -> None:
    assert set(get_args(RecognizerSettings.model_fields["engine"].annotation)) == set(ENGINES)


def test_image_runs_the_engine_of_every_profile() -> None:
    engines = {Settings(profile=name).recognizer.engine for name in profile_names()}
    assert {"onnx", "hybrid"} <= engines
    needed = {extra for engine in engines if (extra := ENGINES[engine]) is not None}
    assert needed <= extras_of_the_image()


def test_image_runs_jobs_the_page_and_traces_and_reads_buckets() -> None:
    assert {"batch", "s3", "tracing", "ui", "modelscope", "huggingface"} <= extras_of_the_image()


def test_extra_is_in_the_image_or_said_not_to_be() -> None:
    assert extras_of_the_image() | NOT_IN_THE_IMAGE == set(extras_of_the_project())


def test_buckets_of_the_docs_have_their_file_system_in_an_extra() -> None:
    page = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    assert "paraserve[batch,s3]" in page
    assert any(entry.startswith("s3fs") for entry in extras_of_the_project()["s3"])
