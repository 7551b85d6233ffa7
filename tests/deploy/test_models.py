"""The model packs are there before a replica wants them, and the cores, too."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from serve_app.inference.loading import packs_of
from serve_app.packs.registry import REGISTERED, DirectorySource, find_pack
from serve_app.settings import Settings, profile_names
from tests.deploy.charting import (
    READY_MADE,
    Json,
    cluster_specs,
    only,
    ready_values,
    render,
    serve_config,
)


def preload_script(objects: list[Json]) -> list[str]:
    container = only(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    command: list[str] = container["command"] + container["args"]
    return command


def waiting_commands(objects: list[Json]) -> list[list[str]]:
    (spec,) = cluster_specs(only(objects, "RayService"))
    return [
        group["template"]["spec"]["initContainers"][0]["command"]
        for group in spec["workerGroupSpecs"]
    ]


def test_workers_wait_for_the_mark_that_the_preload_job_leaves(tmp_path: Path) -> None:
    values = ready_values("one-gpu")
    values["models"]["mountPath"] = str(tmp_path)
    objects = render(values)
    told = tmp_path / "told"
    fake = tmp_path / "paraserve"
    fake.write_text(f'#!/bin/bash\necho "$@" >> {told}\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    wait, other = waiting_commands(objects)
    assert wait == other
    waiting = subprocess.Popen(wait)
    assert waiting.poll() is None
    subprocess.run(preload_script(objects), check=True, env=environment)
    assert waiting.wait(timeout=30) == 0
    pulls = told.read_text().splitlines()
    assert pulls[0] == f"models pull ct-punc --store {tmp_path}"
    assert pulls[-1] == f"models verify --store {tmp_path}"
    assert len(pulls) == 5


def test_failed_fetch_leaves_no_mark(tmp_path: Path) -> None:
    values = ready_values("one-gpu")
    values["models"]["mountPath"] = str(tmp_path)
    fake = tmp_path / "paraserve"
    fake.write_text("#!/bin/bash\nexit 1\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(preload_script(render(values)), check=False, env=environment)
    assert done.returncode == 1
    assert list(tmp_path.glob(".preloaded*")) == []


@pytest.mark.parametrize("name", ["one-gpu", "many-gpus"])
def test_packs_that_are_fetched_are_known(name: str) -> None:
    packs = preload_script(render(ready_values(name)))[4:]
    assert set(packs) <= set(REGISTERED)


def needed_packs(settings: Json) -> list[str]:
    """Returns what the program needs, without directories, which nobody can fetch."""
    names = {each.name for each in packs_of(Settings.model_validate(settings))}
    return sorted(
        name for name in names if not isinstance(find_pack(name).sources[0], DirectorySource)
    )


def preloaded(settings: Json, **values: Json) -> list[str]:
    settings = {**settings, "auth": {"mode": "off"}}
    gpus: Json = {"gpu": {"enabled": True}}
    source: Json = {"source": "pvc"}
    rendered = render({"settings": settings, "models": source, "workerGroups": gpus, **values})
    return preload_script(rendered)[4:]


@pytest.mark.parametrize("profile", profile_names())
def test_preload_fetches_every_pack_of_every_profile(profile: str) -> None:
    assert preloaded({"profile": profile}) == needed_packs({"profile": profile})


@pytest.mark.parametrize(
    "settings",
    [
        {"stages": ["asr"]},
        {"recognizer": {"other_packs": ["paraformer-small", "paraformer-large"]}},
        {"recognizer": {"pack": "paraformer-large", "other_packs": ["dir:/models/a", "/b"]}},
        {"recognizer": {"engine": "hybrid", "pack": "paraformer-large"}},
        {"recognizer": {"engine": "hybrid", "whisper": {"pack": "whisper-small"}}},
        {"recognizer": {"engine": "whispercpp", "pack": "whisper-base"}},
        {"profile": "paraformer-large-cpu", "vad": {"pack": "dir:/models/vad"}},
    ],
)
def test_preload_fetches_every_pack_of_the_settings(settings: Json) -> None:
    assert preloaded(settings) == needed_packs(settings)


def test_exported_pack_is_the_operators_to_bring() -> None:
    assert preloaded({"profile": "cpu-int8-onnx"}) == ["ct-punc", "fsmn-vad"]


def test_packs_of_a_job_with_its_own_profile_are_fetched_too() -> None:
    batch: Json = {"source": "s3://a/", "output": "s3://b/", "profile": "paraformer-small"}
    demo: Json = {"profile": "demo"}
    wanted = {*needed_packs(demo), *needed_packs({"profile": "paraformer-small"})}
    assert preloaded(demo, batch={**batch, "job": {"enabled": True}}) == sorted(wanted)
    assert preloaded(demo, batch=batch) == needed_packs(demo)


@pytest.mark.parametrize("name", READY_MADE)
def test_groups_have_the_cores_that_the_settings_require(name: str) -> None:
    objects = render(ready_values(name))
    (spec,) = cluster_specs(only(objects, "RayService"))
    offered = sum(
        int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        * group["replicas"]
        for group in spec["workerGroupSpecs"]
    )
    asked = sum(_cores(application) for application in serve_config(objects)["applications"])
    assert asked <= offered


def _cores(application: Json) -> float:
    settings = Settings.model_validate(application["args"])
    fixed = {entry["name"]: entry["num_replicas"] for entry in application["deployments"]}
    total = 0.0
    for name in ("Ingress", "Segmenter", "Recognizer", "Punctuator"):
        if name == "Punctuator" and "punctuation" not in settings.stages:
            continue
        size = getattr(settings, name.lower()).deployment
        least = size.autoscaling.min_replicas if size.autoscaling else size.num_replicas
        total += size.num_cpus * fixed.get(name, least)
    return total
