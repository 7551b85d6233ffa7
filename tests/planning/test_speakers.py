"""Speaker labels in the plan: the embedder beside the recognizer, and the clustering at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.core.errors import CostsError
from serve_app.core.speakers import speaker_windows
from serve_app.planning.costs import LineCost, write_costs
from serve_app.planning.generation import Generation, generate
from serve_app.planning.report import num_gpus
from serve_app.planning.search import sized_for
from serve_app.planning.service_config import ServiceShape, shape_of
from serve_app.planning.simulation import RunOptions, simulate
from serve_app.planning.speech import (
    DrawnSpeech,
    SingleChunks,
    SpeechOptions,
    group_of,
    num_windows,
    windows_of,
)
from serve_app.planning.trace import make_trace
from serve_app.settings import Settings
from tests.planning.models import FRAME_S, costs, shape

SINGLE = SingleChunks(FRAME_S)
COSTS = costs(
    10.0,
    recognizer=LineCost(0.5, FRAME_S / 10),
    embedder=LineCost(0.1, 0.25),
    clustering=LineCost(2.0, 0.5),
)


def labeling(share: float = 1.0, num_embedders: int = 1) -> ServiceShape:
    service = shape()
    embedder = replace(service.recognizer, num_replicas=num_embedders)
    return replace(service, embedder=embedder, labeled_share=share)


@pytest.mark.parametrize("speech_s", [0.3, 1.5, 1.51, 2.25, 2.26, 6.0, 29.99])
def test_windows_are_those_of_the_embedder(speech_s: float) -> None:
    assert num_windows(speech_s) == len(speaker_windows(round(speech_s * 16_000)))


def test_group_has_an_item_of_windows_for_each_chunk() -> None:
    group = windows_of(group_of([1.2, 6.0], FRAME_S), FRAME_S)
    assert group.frames == (1, 7)
    assert group.total_frames == 8


def test_answer_waits_for_the_embedder_and_the_clustering() -> None:
    trace = make_trace([1.0], [6.0])
    without = simulate(trace, shape(), COSTS, SINGLE)
    assert without.latency.p50_s == pytest.approx(0.5 + 0.6)
    result = simulate(trace, labeling(), COSTS, SINGLE)
    # 7 windows, embedded beside the recognition, which is faster.
    assert result.latency.p50_s == pytest.approx(0.1 + 7 * 0.25 + 2.0 + 7 * 0.5)
    assert result.queue_delay.p50_s == pytest.approx(0.0)


def test_fast_embedder_is_hidden_behind_the_recognizer() -> None:
    fast = replace(COSTS, embedder=LineCost(0.0, 0.001), clustering=LineCost(0.0, 0.0))
    result = simulate(make_trace([1.0], [6.0]), labeling(), fast, SINGLE)
    assert result.latency.p50_s == pytest.approx(0.5 + 0.6)


def test_request_without_labels_pays_for_none() -> None:
    result = simulate(make_trace([1.0], [6.0]), labeling(0.0), COSTS, SINGLE)
    assert result.latency.p50_s == pytest.approx(0.5 + 0.6)
    assert result.embedder_utilization == 0.0


def test_share_of_the_requests_asks_for_labels() -> None:
    trace = make_trace([10.0 * number for number in range(400)], [6.0] * 400)
    result = simulate(trace, labeling(0.25), COSTS, SINGLE)
    busy_s = result.embedder_utilization * result.span_s
    assert busy_s / (0.1 + 7 * 0.25) == pytest.approx(100, abs=30)
    assert result.num_answered == 400


@pytest.mark.parametrize("by_item", [True, False])
def test_all_requests_are_answered_by_embedders_of_one_size(by_item: bool) -> None:
    trace = generate(Generation("poisson", 3.0, 3600.0), 1)
    service = replace(labeling(num_embedders=3), segmenter_max_recordings=8)
    few = replace(COSTS, embedder=LineCost(0.01, 0.02), clustering=LineCost(0.01, 0.001))
    options = RunOptions(by_item=by_item, chunks_per_group=4.0)
    result = simulate(trace, service.with_recognizers(3), few, speech(), options)
    assert result.num_answered == len(trace)
    assert 0.0 < result.embedder_utilization < 1.0


def speech() -> DrawnSpeech:
    return DrawnSpeech(SpeechOptions(frame_s=FRAME_S), 1)


def test_embedders_are_sized_for_the_busiest_minutes() -> None:
    trace = make_trace([float(second) for second in range(600)], [60.0] * 600)
    slow = replace(COSTS, embedder=LineCost(0.0, 0.02))
    sized = sized_for(trace, labeling(), slow)
    # 60 s of audio a second are 80 windows, of 0.02 s each, at 60 % load.
    assert sized.num_embedders == 3
    assert sized_for(trace, labeling(0.5), slow).num_embedders == 2
    assert sized_for(trace, shape(), slow).embedder is None


def test_gpus_of_embedders_are_counted() -> None:
    service = labeling(num_embedders=2)
    embedder = service.embedder
    assert embedder is not None
    service = replace(
        service,
        recognizer=replace(service.recognizer, gpu_share=1.0),
        embedder=replace(embedder, gpu_share=0.5),
    )
    assert num_gpus(2, service) == 3
    result = simulate(make_trace([0.0], [6.0]), service.with_recognizers(2), COSTS, SINGLE)
    assert result.gpu_hours * 3600 == pytest.approx(3 * result.span_s)


def test_settings_with_the_stage_have_embedders() -> None:
    values = {
        "profile": "speakers",
        "speaker_embedder": {"deployment": {"num_replicas": 3}, "max_batch_windows": 64},
    }
    embedder = shape_of(Settings.model_validate(values)).embedder
    assert embedder is not None
    assert (embedder.num_replicas, embedder.limits.max_cost) == (3, 64)
    assert shape_of(Settings()).embedder is None


def plan(*arguments: str) -> str:
    options = ["plan", "--generate", "poisson:1h/0.1h", "--no-autoscale", "--no-plots"]
    result = CliRunner().invoke(app, [*options, *arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_command_names_the_embedders_and_their_load(tmp_path: Path) -> None:
    said = plan("--profile", "speakers", "--labeled", "0.5", "--out", str(tmp_path))
    assert "speaker embedders for 50% of them" in said
    assert "; speaker embedders" in said
    assert "% busy" in said
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["num_speaker_embedders"] >= 1
    assert content["fixed"]["embedder_utilization"] > 0


def test_command_without_the_stage_has_no_embedders() -> None:
    assert "embedders" not in plan("--profile", "demo")


def test_costs_without_the_stage_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    write_costs(costs(10.0), file)
    with pytest.raises(CostsError, match="none for the stage speakers"):
        plan("--profile", "speakers", "--costs", str(file))
