"""The simulated service against queueing theory, and against its own promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.planning.costs import CallCost, LineCost, StartCost
from serve_app.planning.generation import Generation, generate
from serve_app.planning.results import RunResult
from serve_app.planning.simulation import MachineShape, RunOptions, Simulation, simulate
from serve_app.planning.speech import DrawnSpeech, SingleChunks, SpeechOptions
from serve_app.planning.trace import make_trace
from serve_app.scheduling.admission import Limits
from serve_app.scheduling.autoscaling import ScalingLimits
from serve_app.scheduling.batch_budget import BatchLimits
from tests.planning.models import FRAME_S, costs, poisson, shape

SINGLE = SingleChunks(FRAME_S)


def mean_wait_s(load: float, service_s: float, *, exponential: bool) -> float:
    """Returns the mean of the waits, each counted by the time of its service."""
    waits_s: list[float] = []
    for seed in range(3):
        trace = poisson(8000, load / service_s, service_s, seed, exponential=exponential)
        run = Simulation(trace, shape(), costs(), SINGLE)
        run.result()
        waits_s.append(float(np.average(run.outcomes.delays_s, weights=run.outcomes.audio_s)))
    return float(np.mean(waits_s))


@pytest.mark.slow
def test_waits_are_those_of_a_queue_with_constant_service_times() -> None:
    load, service_s = 0.7, 0.6
    waited_s = mean_wait_s(load, service_s, exponential=False)
    # M/D/1: W = rho * s / (2 (1 - rho)), Pollaczek and Khinchine.
    assert waited_s == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.1)


@pytest.mark.slow
def test_waits_are_those_of_a_queue_with_exponential_service_times() -> None:
    load, service_s = 0.6, 6.0  # long against a frame, to which lengths are rounded
    waited_s = mean_wait_s(load, service_s, exponential=True)
    # M/M/1: W = rho * s / (1 - rho). The queue serves the shorter of two equal claims
    # first; counted by the time of service the mean does not depend on the order
    # (Kleinrock's conservation law, Queueing Systems II, ch. 3.4).
    assert waited_s == pytest.approx(load * service_s / (1 - load), rel=0.15)


def test_latency_of_an_idle_service_is_the_sum_of_its_stages() -> None:
    stages = costs(
        10.0,
        segmenter=LineCost(0.1, 0.01),
        request=LineCost(0.2, 0.0),
        recognizer=LineCost(0.5, FRAME_S / 10),
    )
    result = simulate(make_trace([1.0], [6.0]), shape(), stages, SINGLE)
    assert result.latency.p50_s == pytest.approx(0.2 + 0.1 + 0.06 + 0.5 + 0.6, abs=1e-5)
    assert result.queue_delay.p50_s == pytest.approx(0.2, abs=1e-5)


def test_a_recognizer_with_its_own_core_is_not_slowed_by_others() -> None:
    stages = costs(10.0, segmenter=LineCost(3.0, 0.0), recognizer=LineCost(3.0, 0.0))
    trace = make_trace([0.0, 3.0], [6.0, 6.0])

    def last_s(apart: bool) -> float:
        machine = MachineShape(1.0, recognizers_apart=apart)
        return simulate(trace, shape(), stages, SINGLE, RunOptions(machine=machine)).span_s

    # The second is decoded while the first is recognized: 3 + 3 + 3, or 12 on one core.
    assert last_s(apart=True) == pytest.approx(9.0)
    assert last_s(apart=False) == pytest.approx(12.0)


def test_every_answer_takes_the_caller_time() -> None:
    trace = make_trace([0.0], [6.0])
    free, dear = (costs(1.0, call=CallCost(0.0, 0.0, answer_s=answer_s)) for answer_s in (0.0, 2.0))
    took_s = [simulate(trace, shape(), each, SINGLE).latency.p50_s for each in (free, dear)]
    assert took_s[1] - took_s[0] == pytest.approx(2.0)


def test_every_item_is_reported_with_its_wait() -> None:
    trace = poisson(50, 1.0, 0.6, 0, exponential=False)
    run = Simulation(trace, shape(), costs(), SINGLE)
    told: list[float] = []
    run.watch_items(lambda call, waited_s: told.append(waited_s))
    run.result()
    assert told == pytest.approx(run.outcomes.item_delays_s.tolist(), abs=1e-6)


def test_a_long_recording_never_has_more_groups_in_flight_than_allowed() -> None:
    speech = DrawnSpeech(SpeechOptions(), 1)
    most = 0
    run = Simulation(make_trace([0.0], [3600.0]), shape(4), costs(50.0), speech)

    def watch(_: object) -> None:
        nonlocal most
        held = sum(replica.num_calls for replica in run._recognizer.replicas)
        most = max(most, held)
        run._clock.after(0.05, watch)

    watch(None)
    run.result()
    assert most == 8


@given(
    seed=st.integers(0, 1000),
    num_replicas=st.integers(1, 5),
    by_item=st.booleans(),
    mtbf_s=st.one_of(st.none(), st.floats(20.0, 500.0)),
)
@settings(max_examples=25, deadline=None)
def test_every_request_ends_in_exactly_one_way(
    seed: int, num_replicas: int, by_item: bool, mtbf_s: float | None
) -> None:
    trace = generate(Generation("poisson", 3.0, 300.0), seed)
    service = replace(
        shape(num_replicas, max_items=8, max_calls=4),
        admission=Limits(max_running=4, max_waiting=4),
        request_timeout_s=120.0,
        mtbf_s=mtbf_s,
    )
    speech = DrawnSpeech(SpeechOptions(), seed)
    result = simulate(trace, service, costs(40.0), speech, RunOptions(seed, by_item))
    ended = (result.num_answered, result.num_refused, result.num_expired, result.num_rejected)
    assert sum(ended) == result.num_requests == len(trace)
    assert result.latency.num == result.num_answered


def run_day(num_replicas: int, seed: int = 1, *, by_item: bool = True) -> RunResult:
    trace = generate(Generation("poisson", 8.0, 480.0), 5)
    service = shape(num_replicas, max_items=16)
    speech = DrawnSpeech(SpeechOptions(), 1)
    return simulate(trace, service, costs(20.0), speech, RunOptions(seed, by_item))


def test_the_same_seed_gives_the_same_result() -> None:
    first, second, other = run_day(4), run_day(4), run_day(4, seed=2)
    assert first.item_delay == second.item_delay
    assert first.latency == second.latency
    assert first.num_events == second.num_events
    assert first.item_delay != other.item_delay


def test_more_replicas_wait_no_longer() -> None:
    p95_s = [run_day(num).item_delay.p95_s for num in (2, 3, 4, 6, 9)]
    for fewer, more in pairwise(p95_s):
        assert more <= fewer * 1.05 + 0.02


def test_groups_as_items_give_nearly_the_delays_of_chunks() -> None:
    by_chunk, by_group = run_day(4), run_day(4, by_item=False)
    assert by_group.latency.p50_s == pytest.approx(by_chunk.latency.p50_s, rel=0.15)
    assert by_group.replica_hours == pytest.approx(by_chunk.replica_hours, rel=0.1)


def test_a_full_line_refuses_and_the_refusals_are_counted() -> None:
    service = replace(shape(), admission=Limits(max_running=1, max_waiting=2))
    result = simulate(make_trace([0.0] * 10, [6.0] * 10), service, costs(), SINGLE)
    assert (result.num_answered, result.num_refused) == (3, 7)
    assert result.refused_share == 0.7


def test_a_request_past_its_deadline_is_canceled() -> None:
    service = replace(shape(), request_timeout_s=10.0)
    result = simulate(make_trace([0.0, 0.1, 0.2], [6.0] * 3), service, costs(), SINGLE)
    assert (result.num_answered, result.num_expired) == (1, 2)


def test_a_clip_goes_before_the_backlog_of_a_long_recording() -> None:
    speech = DrawnSpeech(SpeechOptions(), 1)
    trace = make_trace([0.0, 60.0], [7200.0, 3.0])
    result = simulate(trace, shape(), costs(20.0), speech)
    clip = result.classes[0]
    assert clip.latency.p50_s < 2.0


def test_replicas_follow_a_step_of_load() -> None:
    limits = ScalingLimits(
        1, 8, target_drain_s=10.0, fallback_rtfx=10.0, upscale_delay_s=5.0, downscale_delay_s=60.0
    )
    arrivals_s = np.concatenate([np.arange(0, 600, 20.0), np.arange(600, 1200, 1.0),
                                 np.arange(1200, 2400, 20.0)])  # fmt: skip
    trace = make_trace(arrivals_s, np.full(len(arrivals_s), 30.0))
    stages = costs(10.0, start=StartCost(20.0))
    result = simulate(trace, shape(max_items=4).with_scaling(limits), stages, SINGLE)
    timeline = result.timeline
    before = timeline.replicas[timeline.time_s < 600]
    during = timeline.replicas[(timeline.time_s > 720) & (timeline.time_s < 1200)]
    assert before.max() <= 2
    assert during.min() >= 3
    assert timeline.replicas[-1] <= 2
    assert result.num_answered == len(trace)
    assert result.peak_replicas <= 8


def test_a_replica_that_is_ordered_works_only_after_its_start() -> None:
    limits = ScalingLimits(1, 2, target_drain_s=5.0, fallback_rtfx=1.0, upscale_delay_s=0.0)
    stages = costs(1.0, start=StartCost(40.0, 60.0))
    result = simulate(
        make_trace([0.0] * 40, [6.0] * 40), shape().with_scaling(limits), stages, SINGLE
    )
    timeline = result.timeline
    working = timeline.time_s[timeline.replicas == 2]
    ordered = timeline.time_s[timeline.requested == 2]
    assert 99.0 <= working.min() - ordered.min() <= 102.0


def test_calls_of_dead_replicas_are_made_again() -> None:
    service = replace(shape(3, max_items=4), mtbf_s=30.0)
    stages = costs(10.0, start=StartCost(5.0))
    trace = poisson(300, 1.0, 12.0, 3, exponential=False)
    result = simulate(trace, service, stages, SINGLE)
    assert result.num_retries > 0
    assert result.num_answered == 300


def test_batches_keep_to_the_budget_of_time() -> None:
    group = replace(shape().recognizer, limits=BatchLimits(10**9, 64, max_s=1.0))
    service = replace(shape(), recognizer=group)
    result = simulate(make_trace([0.0] * 200, [6.0] * 200), service, costs(20.0), SINGLE)
    # 0.3 s an item: three fit, and the first batch has one.
    assert 2.0 < result.mean_batch_items <= 3.0


def test_busy_time_is_the_work_that_was_done() -> None:
    trace = poisson(500, 0.5, 6.0, 3, exponential=False)
    result = simulate(trace, shape(2), costs(5.0), SINGLE)
    assert result.utilization * result.replica_hours * 3600 == pytest.approx(500 * 6.0 / 5.0)
