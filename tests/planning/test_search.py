"""The smallest size that reaches a goal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serve_app.core.errors import ConfigurationError
from serve_app.planning.generation import Generation, generate
from serve_app.planning.report import num_gpus
from serve_app.planning.search import Goal, Planner, Trial, sized_for
from serve_app.planning.service_config import ServiceShape
from serve_app.planning.simulation import RunOptions, simulate
from serve_app.planning.speech import DrawnSpeech, SpeechOptions
from serve_app.planning.trace import make_trace
from serve_app.scheduling.admission import Limits
from serve_app.scheduling.autoscaling import ScalingLimits
from tests.planning.models import costs, shape

TRACE = generate(Generation("poisson", 6.0, 600.0), 1)


def speech() -> DrawnSpeech:
    return DrawnSpeech(SpeechOptions(), 1)


def planner(goal: Goal, service: ServiceShape | None = None) -> Planner:
    service = service or shape(max_items=16)
    return Planner(TRACE, service, costs(10.0), speech, RunOptions(), goal)


def test_one_replica_less_misses_the_goal() -> None:
    goal = Goal(3.0)
    plan = planner(goal).plan(None)
    size = plan.fixed.max_replicas
    assert plan.fixed.met
    assert size > 1
    fewer = simulate(
        TRACE, shape(max_items=16).with_recognizers(size - 1), costs(10.0), speech(), RunOptions()
    )
    assert not goal.is_met(fewer)


def test_no_size_is_simulated_twice() -> None:
    trials = planner(Goal(3.0)).plan(ScalingLimits(1, 2)).trials
    sizes = [(trial.mode, trial.min_replicas, trial.whole) for trial in trials]
    assert len(sizes) == len(set(sizes))


def test_a_scaled_service_that_is_offered_reaches_the_goal() -> None:
    limits = ScalingLimits(1, 2, target_drain_s=5.0, fallback_rtfx=10.0, upscale_delay_s=2.0)
    plan = planner(Goal(8.0)).plan(limits)
    assert plan.scaled is not None
    assert plan.scaled.met
    assert plan.scaled.min_replicas <= plan.fixed.max_replicas < plan.scaled.max_replicas


def test_the_best_size_of_the_busiest_stretch_is_confirmed_on_all_of_the_trace() -> None:
    search = planner(Goal(3.0))
    search.search_in(120.0)
    plan = search.plan(None)
    assert plan.trials[0].whole is False
    assert plan.fixed.whole
    assert plan.fixed.met


def test_a_goal_that_other_stages_prevent_is_reported() -> None:
    service = replace(shape(), admission=Limits(max_running=1, max_waiting=0))
    with pytest.raises(ConfigurationError, match="ingresses"):
        planner(Goal(3.0), service).plan(None)


def test_refusals_count_against_the_goal() -> None:
    service = replace(shape(), admission=Limits(max_running=1, max_waiting=0))
    result = simulate(make_trace([0.0, 0.1], [6.0, 6.0]), service, costs(), speech())
    assert result.num_refused == 1
    assert not Goal(1e9).is_met(result)
    assert Goal(1e9, max_refused_share=0.5).is_met(result)


def test_segmenters_and_ingresses_are_sized_for_the_busiest_minutes() -> None:
    stages = costs(10.0)
    stages = replace(stages, segmenter=replace(stages.segmenter, unit_s=0.01))
    sized = sized_for(TRACE, shape(), stages)
    busiest = TRACE.between(*TRACE.busiest(300.0))
    load = busiest.audio_s.sum() / 300 * 0.01
    assert sized.num_segmenters >= load / 0.6
    assert sized.num_ingresses >= 1


@pytest.mark.parametrize(
    ("share", "punctuator_share", "replicas", "gpus"),
    [(0.5, 0.25, 1, 1), (0.5, 0.25, 2, 2), (0.4, 0.2, 2, 1), (1.0, 0.0, 3, 3), (0.0, 0.0, 5, 0)],
)
def test_gpus_are_counted_by_the_replicas_that_fit(
    share: float, punctuator_share: float, replicas: int, gpus: int
) -> None:
    service = shape()
    service = replace(
        service,
        recognizer=replace(service.recognizer, gpu_share=share),
        punctuator=replace(service.recognizer, gpu_share=punctuator_share),
    )
    assert num_gpus(replicas, service) == gpus


def test_every_trial_is_reported() -> None:
    told: list[Trial] = []
    search = Planner(
        TRACE, shape(max_items=16), costs(10.0), speech, RunOptions(), Goal(3.0), told.append
    )
    plan = search.plan(None)
    assert tuple(told) == plan.trials
    assert told
