"""Files of costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve_app.core.errors import CostsError
from serve_app.planning.costs import read_costs, shipped_costs, write_costs
from tests.planning.models import costs


def test_written_value_is_read_back(tmp_path: Path) -> None:
    written = costs(7.0, assumed={"start": "a guess"})
    write_costs(written, tmp_path / "costs.json")
    assert read_costs(tmp_path / "costs.json") == written


@pytest.mark.parametrize(
    "profile", ["demo", "speakers", "paraformer-large", "paraformer-large-cpu", "cpu-int8"]
)
def test_shipped_costs_name_their_origin(profile: str) -> None:
    shipped = shipped_costs(profile)
    assert shipped.name == profile
    assert shipped.origin
    assert shipped.recognizer_rtfx > 1
    assert set(shipped.assumed) <= {
        "recognizer", "segmenter", "punctuator", "request", "call", "start", "words_per_s",
        "embedder", "clustering",
    }  # fmt: skip


@pytest.mark.parametrize(
    "profile", ["demo", "speakers", "paraformer-large", "paraformer-large-cpu", "cpu-int8"]
)
def test_shipped_costs_know_the_stage_speakers(profile: str) -> None:
    embedder, clustering = shipped_costs(profile).speaker_costs()
    assert embedder.unit_s > 0
    assert clustering.of(1000) > 0


def test_costs_without_the_stage_speakers_are_read_and_refuse_to_plan_it(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    write_costs(costs(), path)
    content = json.loads(path.read_text())
    del content["embedder"], content["clustering"]
    path.write_text(json.dumps(content))
    with pytest.raises(CostsError, match="none for the stage speakers; measure them"):
        read_costs(path).speaker_costs()


def test_figures_of_unmeasured_gpus_are_marked() -> None:
    assert "recognizer" in shipped_costs("paraformer-large").assumed


def test_error_for_an_unknown_profile_explains_how_to_measure() -> None:
    with pytest.raises(CostsError, match="simulation measure"):
        shipped_costs("mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recognizer": {"fixed_s": -1, "unit_s": 1}}, "recognizer: fixed_s must be a number"),
        ({"recognizer": {"fixed_s": 1}}, "unit_s"),
        ({"recognizer": 3}, "recognizer: not a mapping"),
        ({"recognizer": None}, "recognizer: not a mapping"),
        ({"embedder": {"fixed_s": 1}}, "embedder: .*unit_s"),
        ({"speed": 3}, "speed is not a known field"),
        ({"words_per_s": "many"}, "words_per_s must be a number"),
    ],
)
def test_error_names_the_fault(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    write_costs(costs(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CostsError, match=message):
        read_costs(path)


def test_a_file_that_is_not_json_raises_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text("{")
    with pytest.raises(CostsError, match=r"costs\.json"):
        read_costs(tmp_path / "costs.json")
