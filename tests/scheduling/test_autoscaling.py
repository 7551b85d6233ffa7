"""The autoscaling policy: follows the queue, and nothing that comes and goes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.scheduling.autoscaling import LoadSample, ScalingLimits, ScalingPolicy

# A replica recognizes 10 s of audio a second, so one is worth 100 s of waiting audio.
LIMITS = ScalingLimits(
    min_replicas=1,
    max_replicas=8,
    target_drain_s=10.0,
    fallback_rtfx=10.0,
    hysteresis=0.2,
    upscale_delay_s=5.0,
    downscale_delay_s=60.0,
    idle_to_zero_delay_s=100.0,
    upscale_step=2,
    downscale_step=1,
    step_period_s=10.0,
)


def load(
    audio_s: float, num_replicas: int = 1, *, rtfx: float | None = 10.0, throughput: float = 0.0
) -> LoadSample:
    return LoadSample(audio_s, 0.0, 0.0, rtfx, num_replicas, throughput)


class Cluster:
    """Does what the policy says, at once, a sample every second."""

    def __init__(self, limits: ScalingLimits = LIMITS, num_replicas: int = 1) -> None:
        self.policy = ScalingPolicy(limits)
        self.num_replicas = num_replicas
        self.now = 100.0
        self.history = [num_replicas]

    def run(self, sample: LoadSample, seconds: int) -> int:
        for _ in range(seconds):
            self.now += 1.0
            self.num_replicas = self.policy.decide(
                replace(sample, num_replicas=self.num_replicas), self.now
            )
            self.history.append(self.num_replicas)
        return self.num_replicas

    @property
    def num_turns(self) -> int:
        steps = [math.copysign(1, b - a) for a, b in pairwise(self.history) if a != b]
        return sum(a != b for a, b in pairwise(steps))


def test_replicas_drain_the_audio_within_the_target() -> None:
    policy = ScalingPolicy(LIMITS)
    assert [policy.wanted(load(audio_s)) for audio_s in (0, 1, 100, 101, 399, 10_000)] == [
        1,
        1,
        1,
        2,
        4,
        8,
    ]


def test_all_three_places_where_audio_waits_count() -> None:
    sample = LoadSample(100.0, 60.0, 90.0, 10.0, 1)
    assert ScalingPolicy(LIMITS).wanted(sample) == 3


def test_replicas_scale_up_after_the_delay_and_not_before() -> None:
    cluster = Cluster()
    assert cluster.run(load(300), 5) == 1
    assert cluster.run(load(300), 1) == 3


def test_a_short_burst_starts_nothing() -> None:
    cluster = Cluster()
    for _ in range(5):
        cluster.run(load(800), 4)
        cluster.run(load(50), 1)
    assert set(cluster.history) == {1}


def test_replicas_scale_up_by_one_step_per_period() -> None:
    cluster = Cluster()
    cluster.run(load(10_000), 40)
    changes = [(t, n) for t, (m, n) in enumerate(pairwise(cluster.history)) if m != n]
    assert changes == [(5, 3), (15, 5), (25, 7), (35, 8)]


def test_replicas_scale_down_after_the_delay_one_step_per_period() -> None:
    cluster = Cluster(num_replicas=3)
    assert cluster.run(load(0), 60) == 3
    assert cluster.run(load(0), 1) == 2
    assert cluster.run(load(0), 9) == 2
    assert cluster.run(load(0), 1) == 1
    assert cluster.run(load(0), 500) == 1


def test_stays_where_it_is_within_the_hysteresis() -> None:
    cluster = Cluster(num_replicas=3)
    assert cluster.run(load(190), 300) == 3
    assert cluster.run(load(160), 300) == 2


def test_an_empty_queue_with_busy_replicas_stops_none_of_them() -> None:
    cluster = Cluster(num_replicas=3)
    assert cluster.run(load(20, throughput=25.0), 600) == 3
    assert cluster.run(load(20, throughput=17.0), 600) == 2


def test_nothing_is_stopped_while_metrics_are_missing() -> None:
    cluster = Cluster(num_replicas=3)
    cluster.run(load(0), 50)
    assert cluster.run(LoadSample(None, None, 0.0, None, 3), 600) == 3
    assert cluster.run(load(0), 60) == 3
    assert cluster.run(load(0), 1) == 2


def test_known_audio_adds_replicas_while_other_metrics_are_missing() -> None:
    assert Cluster().run(LoadSample(None, None, 300.0, None, 1), 10) == 3


@pytest.mark.parametrize("rtfx", [None, 0.0, -1.0, math.nan, math.inf])
def test_unusable_rtfx_falls_back(rtfx: float | None) -> None:
    assert ScalingPolicy(LIMITS).wanted(load(300, rtfx=rtfx)) == 3


def test_idle_deployment_scales_to_zero_only_after_its_own_delay() -> None:
    cluster = Cluster(replace(LIMITS, min_replicas=0))
    assert cluster.run(load(0), 100) == 1
    assert cluster.run(load(0), 1) == 0


def test_replica_that_is_starting_is_not_stopped_as_idle() -> None:
    limits = replace(LIMITS, min_replicas=0, downscale_delay_s=1.0, idle_to_zero_delay_s=3.0)
    cluster = Cluster(limits, num_replicas=0)
    assert cluster.run(LoadSample(0.0, 0.0, 5.0, None, 0), 1) == 1
    # The caller has left, the replica takes 30 s to start.
    assert cluster.run(replace(load(0), starting=True), 30) == 1
    assert cluster.run(load(0), 2) == 1
    assert cluster.run(load(0), 10) == 0


def test_background_work_keeps_only_the_last_replica() -> None:
    cluster = Cluster(replace(LIMITS, min_replicas=0), num_replicas=4)
    assert cluster.run(replace(load(0), in_use=True), 300) == 1
    assert cluster.run(load(0), 101) == 0
    assert cluster.run(replace(load(0), in_use=True), 1) == 1


def test_a_trickle_keeps_one_replica() -> None:
    cluster = Cluster(replace(LIMITS, min_replicas=0))
    for _ in range(20):
        cluster.run(load(0), 50)
        cluster.run(load(3), 1)
    assert set(cluster.history) == {1}


@pytest.mark.parametrize("place", ["queued_audio_s", "running_audio_s", "hidden_audio_s"])
def test_any_audio_scales_up_from_zero_at_once(place: str) -> None:
    cluster = Cluster(replace(LIMITS, min_replicas=0), num_replicas=0)
    assert cluster.run(load(0), 50) == 0
    asleep = LoadSample(0.0, 0.0, 0.0, None, 0)
    known = {"queued_audio_s": 0.0, "running_audio_s": 0.0, "hidden_audio_s": 0.0, place: 0.5}
    assert cluster.run(replace(asleep, **known), 1) == 1  # type: ignore[arg-type]  # floats


def test_no_metrics_at_zero_replicas_wake_nothing() -> None:
    cluster = Cluster(replace(LIMITS, min_replicas=0), num_replicas=0)
    assert cluster.run(LoadSample(None, None, None, None, 0), 50) == 0


def test_a_count_outside_the_bounds_is_brought_inside() -> None:
    assert Cluster(num_replicas=12).run(load(0), 1) == 8
    assert Cluster(replace(LIMITS, min_replicas=3)).run(load(0), 1) == 3


def test_a_clock_that_goes_back_shortens_no_delay() -> None:
    policy = ScalingPolicy(LIMITS)
    policy.decide(load(300), 100.0)
    assert policy.decide(load(300), 50.0) == 1
    assert policy.decide(load(300), 104.0) == 1
    assert policy.decide(load(300), 105.0) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_replicas": 9},
        {"max_replicas": 0, "min_replicas": 0},
        {"min_replicas": -1},
        {"target_drain_s": 0.0},
        {"fallback_rtfx": 0.0},
        {"max_utilization": 1.5},
        {"hysteresis": -0.1},
        {"upscale_step": 0},
        {"upscale_delay_s": -1.0},
        {"step_period_s": -1.0},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|replicas"):
        replace(LIMITS, **wrong)  # type: ignore[arg-type]  # values of many fields


@settings(deadline=None, max_examples=50)
@given(
    high_s=st.integers(1, 120),
    low_s=st.integers(1, 59),
    high=st.floats(101, 5000),
    low=st.floats(0, 100),
)
def test_a_square_wave_faster_than_the_downscale_delay_causes_no_scaling(
    high_s: int, low_s: int, high: float, low: float
) -> None:
    cluster = Cluster()
    for _ in range(6):
        cluster.run(load(high), high_s)
        cluster.run(load(low), low_s)
    assert cluster.num_turns == 0


@settings(deadline=None, max_examples=50)
@given(
    period_s=st.integers(2, 400),
    high=st.floats(0, 5000),
    low=st.floats(0, 5000),
    min_replicas=st.integers(0, 3),
)
def test_replicas_change_direction_no_more_often_than_the_square_wave(
    period_s: int, high: float, low: float, min_replicas: int
) -> None:
    cluster = Cluster(replace(LIMITS, min_replicas=min_replicas), max(1, min_replicas))
    num_waves = 5
    for _ in range(num_waves):
        cluster.run(load(high), period_s)
        cluster.run(load(low), period_s)
    assert cluster.num_turns <= 2 * num_waves - 1
    assert all(min_replicas <= n <= LIMITS.max_replicas for n in cluster.history)


@settings(deadline=None, max_examples=50)
@given(
    loads=st.lists(
        st.tuples(st.floats(0, 2000), st.floats(0, 2000), st.integers(1, 40)),
        min_size=1,
        max_size=12,
    ),
    limits=st.builds(
        replace,
        st.just(LIMITS),
        min_replicas=st.integers(0, 2),
        upscale_step=st.integers(1, 4),
        downscale_step=st.integers(1, 4),
        downscale_delay_s=st.floats(0, 60),
    ),
)
def test_more_load_never_gives_fewer_replicas(
    loads: list[tuple[float, float, int]], limits: ScalingLimits
) -> None:
    less, more = Cluster(limits, 2), Cluster(limits, 2)
    for audio_s, extra_s, seconds in loads:
        less.run(load(audio_s), seconds)
        more.run(load(audio_s + extra_s), seconds)
    assert all(a <= b for a, b in zip(less.history, more.history, strict=True))


@pytest.mark.parametrize("arrival", [4.0, 13.0, 25.0, 47.0, 71.0])
def test_a_steady_arrival_settles_and_stays(arrival: float) -> None:
    """Closed loop: the replicas work off a queue that fills at a constant rate."""
    cluster = Cluster()
    queued_s = 0.0
    settled: list[int] = []
    for second in range(3600):
        done_s = min(queued_s + arrival, 10.0 * cluster.num_replicas)
        queued_s += arrival - done_s
        cluster.run(load(queued_s, throughput=done_s), 1)
        if second >= 1800:
            settled.append(cluster.num_replicas)
    assert len(set(settled)) == 1
    assert settled[0] * 10.0 >= arrival
    assert queued_s < 100.0


def test_throughput_that_fades_does_not_keep_the_last_replica() -> None:
    limits = replace(LIMITS, min_replicas=0, downscale_delay_s=5.0, idle_to_zero_delay_s=5.0)
    cluster = Cluster(limits)
    assert cluster.run(load(0, throughput=0.01), 60) == 0
