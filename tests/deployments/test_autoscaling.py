"""The policies as Serve's controller calls them, and what Serve is told of them."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import cast

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app.deployments import autoscaling, backlog_board
from serve_app.deployments.autoscaling import (
    JobRunnerPolicy,
    QueuedAudioPolicy,
    SegmenterPolicy,
    load_sample,
)
from serve_app.deployments.backlog_board import ReportedBacklog
from serve_app.deployments.options import (
    job_runner_autoscaling,
    recognizer_autoscaling,
    segmenter_autoscaling,
)
from serve_app.scheduling.autoscaling import LoadSample, ScalingLimits
from serve_app.settings import Settings

APP = "app-of-test"


@pytest.fixture(autouse=True)
def empty_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_board, "_board", {})
    monkeypatch.setattr(backlog_board, "_jobs", {})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(autoscaling, "time", clock)
    return clock


def context(
    deployment: str,
    reports: dict[str, dict[str, float] | None],
    *,
    target: int | None = None,
    sent_at: float = 50.0,
    requests: float = 0.0,
    queued_requests: float = 0.0,
) -> AutoscalingContext:
    """A context with a replica per report; None for one that has not reported."""
    ids = {name: ReplicaID(name, DeploymentID(deployment, APP)) for name in reports}
    raw: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
    for name, report in reports.items():
        for metric, value in (report or {}).items():
            old = TimeStampedValue(sent_at - 1, 9999.0)
            raw.setdefault(metric, {})[ids[name]] = [old, TimeStampedValue(sent_at, value)]
    return AutoscalingContext(
        deployment_id=DeploymentID(deployment, APP),
        deployment_name=deployment,
        app_name=APP,
        current_num_replicas=len(reports),
        target_num_replicas=len(reports) if target is None else target,
        running_replicas=list(ids.values()),
        total_num_requests=requests,
        total_queued_requests=queued_requests,
        aggregated_metrics=None,
        raw_metrics=raw,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=10,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=sent_at,
        config=AutoscalingConfig(min_replicas=0, max_replicas=10, target_ongoing_requests=2),
    )


def recognizer_report(queued_s: float, rtfx: float = 10.0) -> dict[str, float]:
    return {
        "queued_audio_s": queued_s,
        "running_audio_s": 5.0,
        "rtfx": rtfx,
        "audio_s_per_s": 0.0,
        "background_audio_s": 0.0,
    }


LIMITS = {
    "min_replicas": 0,
    "max_replicas": 6,
    "target_drain_s": 10.0,
    "fallback_rtfx": 10.0,
    "upscale_delay_s": 4.0,
    "upscale_step": 6,
    "downscale_delay_s": 20.0,
    "idle_to_zero_delay_s": 20.0,
}


def test_backlog_beyond_what_the_recognizers_have_is_hidden() -> None:
    sample = load_sample(
        [recognizer_report(50.0), recognizer_report(30.0, rtfx=20.0)],
        ReportedBacklog(500.0, True, 0.0),
        num_running=2,
        num_replicas=3,
    )
    assert sample == LoadSample(80.0, 10.0, 410.0, 15.0, 3, 0.0, True)


def test_reports_that_cross_each_other_hide_nothing_negative() -> None:
    sample = load_sample(
        [recognizer_report(50.0)], ReportedBacklog(20.0, True, 0.0), num_running=1, num_replicas=1
    )
    assert sample.hidden_audio_s == 0.0


def test_a_replica_that_has_not_reported_makes_the_sample_incomplete() -> None:
    backlog = ReportedBacklog(20.0, True, 0.0)
    sample = load_sample([recognizer_report(50.0)], backlog, num_running=2, num_replicas=2)
    assert not sample.is_complete
    assert sample.known_audio_s == 55.0


def test_without_word_from_the_segmenters_the_sample_is_incomplete() -> None:
    sample = load_sample([recognizer_report(0.0)], None, num_running=1, num_replicas=1)
    assert not sample.is_complete


def test_no_replicas_and_no_backlog_is_a_complete_picture_of_nothing() -> None:
    sample = load_sample([], ReportedBacklog(0.0, True, 0.0), num_running=0, num_replicas=0)
    assert sample.is_complete
    assert sample.known_audio_s == 0.0


def test_rtfx_of_a_replica_that_has_run_nothing_is_left_out() -> None:
    reports = [recognizer_report(0.0, rtfx=0.0), recognizer_report(0.0, rtfx=30.0)]
    sample = load_sample(reports, None, num_running=2, num_replicas=2)
    assert sample.rtfx_per_replica == 30.0


def test_backlog_of_the_segmenters_scales_the_recognizers(clock: Clock) -> None:
    segmenters, recognizers = SegmenterPolicy(2.0), QueuedAudioPolicy(2.0, LIMITS)
    decided = []
    for second in range(6):
        clock.now += 1
        sent_at = 50.0 + second
        segmenters(
            context("Segmenter", {"s1": {"backlog_audio_s": 305.0}}, sent_at=sent_at, requests=1)
        )
        reports: dict[str, dict[str, float] | None] = {"r1": recognizer_report(20.0)}
        decided.append(recognizers(context("Recognizer", reports, sent_at=sent_at))[0])
    assert decided == [1, 1, 1, 1, 4, 4]


def test_backlog_scales_recognizers_up_from_zero(clock: Clock) -> None:
    segmenters, recognizers = SegmenterPolicy(2.0), QueuedAudioPolicy(2.0, LIMITS)
    segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}))
    assert recognizers(context("Recognizer", {}))[0] == 0
    segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 2.0}}, sent_at=51.0))
    assert recognizers(context("Recognizer", {}))[0] == 1


def test_waiting_jobs_scale_recognizers_up_from_zero(clock: Clock) -> None:
    segmenters, recognizers = SegmenterPolicy(2.0), QueuedAudioPolicy(2.0, LIMITS)
    runners = JobRunnerPolicy(2.0)
    segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}))
    runners(context("JobRunner", {"j1": {"waiting_audio_s": 0.0}}))
    assert recognizers(context("Recognizer", {}))[0] == 0
    runners(context("JobRunner", {"j1": {"waiting_audio_s": 5.0}}, sent_at=51.0))
    assert recognizers(context("Recognizer", {}))[0] == 1


def test_waiting_jobs_add_to_the_queued_audio_and_count_once(clock: Clock) -> None:
    """Each runner reports the jobs of the one store."""
    segmenters, recognizers = SegmenterPolicy(2.0), QueuedAudioPolicy(2.0, LIMITS)
    runners = JobRunnerPolicy(2.0)
    decided = []
    for second in range(6):
        clock.now += 1
        at = 50.0 + second
        segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 25.0}}, sent_at=at))
        waiting: dict[str, dict[str, float] | None] = {
            name: {"waiting_audio_s": 300.0} for name in ("j1", "j2")
        }
        assert runners(context("JobRunner", waiting, sent_at=at))[0] <= 2
        reports: dict[str, dict[str, float] | None] = {"r1": recognizer_report(20.0)}
        decided.append(recognizers(context("Recognizer", reports, sent_at=at))[0])
    assert decided == [1, 1, 1, 1, 4, 4]


def test_runners_that_stop_reporting_neither_keep_nor_start_recognizers(clock: Clock) -> None:
    segmenters, recognizers = SegmenterPolicy(2.0), QueuedAudioPolicy(2.0, LIMITS)
    runners = JobRunnerPolicy(2.0)
    runners(context("JobRunner", {"j1": {"waiting_audio_s": 50.0}}))
    for second in range(60):
        clock.now += 1
        at = 51.0 + second
        runners(context("JobRunner", {"j1": {"waiting_audio_s": 50.0}}, sent_at=50.0))
        segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}, sent_at=at))
        idle = {"r1": {**recognizer_report(0.0), "running_audio_s": 0.0}}
        decided, _ = recognizers(context("Recognizer", dict(idle), sent_at=at))
    assert decided == 0


def test_runners_report_only_where_the_recognizers_scale_on_queued_audio() -> None:
    scaled = settings(max_replicas=7).model_copy(
        update={"jobs": Settings().jobs.model_copy(update={"num_runners": 2})}
    )
    config = job_runner_autoscaling(scaled)
    assert config is not None
    assert (config.min_replicas, config.max_replicas) == (2, 2)
    assert job_runner_autoscaling(Settings()) is None
    assert job_runner_autoscaling(settings(policy="ongoing_requests")) is None


def test_calls_that_wait_wake_recognizers_that_went_to_zero(clock: Clock) -> None:
    """A batch job's calls are in no segmenter's backlog."""
    segmenters, recognizers = SegmenterPolicy(2.0), QueuedAudioPolicy(2.0, LIMITS)
    segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}))
    assert recognizers(context("Recognizer", {}))[0] == 0
    assert recognizers(context("Recognizer", {}, queued_requests=1.0))[0] == 1


def test_background_work_keeps_one_recognizer_and_is_worth_no_more() -> None:
    report = recognizer_report(0.0) | {"running_audio_s": 0.0, "background_audio_s": 900.0}
    sample = load_sample([report], ReportedBacklog(0.0, True, 0.0), num_running=1, num_replicas=1)
    assert sample.in_use
    assert sample.known_audio_s == 0.0


@pytest.mark.parametrize(
    ("num_running", "num_replicas", "starting"), [(0, 0, False), (0, 1, True), (1, 2, False)]
)
def test_deployment_is_starting_while_none_of_its_replicas_runs(
    num_running: int, num_replicas: int, starting: bool
) -> None:
    reports = [recognizer_report(0.0)] * num_running
    sample = load_sample(reports, None, num_running=num_running, num_replicas=num_replicas)
    assert sample.starting is starting


def test_replicas_that_stop_reporting_hold_the_number(clock: Clock) -> None:
    policy = QueuedAudioPolicy(2.0, LIMITS)
    segmenters = SegmenterPolicy(2.0)
    idle: dict[str, dict[str, float] | None] = {
        "r1": recognizer_report(0.0) | {"running_audio_s": 0.0},
        "r2": recognizer_report(0.0) | {"running_audio_s": 0.0},
    }
    for _ in range(15):
        clock.now += 1
        segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}, sent_at=clock.now))
        assert policy(context("Recognizer", idle))[0] == 2
    for _ in range(100):
        clock.now += 1
        segmenters(context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}, sent_at=clock.now))
        assert policy(context("Recognizer", idle))[0] == 2


def test_segmenters_follow_their_requests(clock: Clock) -> None:
    ctx = context("Segmenter", {"s1": {"backlog_audio_s": 0.0}}, requests=6.0)
    assert SegmenterPolicy(2.0)(ctx)[0] == 3


def settings(**autoscaling: object) -> Settings:
    return Settings.model_validate({"recognizer": {"deployment": {"autoscaling": autoscaling}}})


def test_queued_audio_is_the_default_policy_with_all_its_limits() -> None:
    config = recognizer_autoscaling(settings(max_replicas=7, target_drain_s=12.0))
    assert config is not None
    assert config.policy.policy_function == "serve_app.deployments.autoscaling:QueuedAudioPolicy"
    policy = cast(type[QueuedAudioPolicy], config.policy.get_policy())(
        **config.policy.policy_kwargs
    )
    limits = policy._policy.limits
    assert limits.max_replicas == 7
    assert limits.target_drain_s == 12.0
    assert set(config.policy.policy_kwargs["limits"]) == set(ScalingLimits.__dataclass_fields__)


def test_serve_adds_no_delay_to_those_of_the_policy() -> None:
    config = recognizer_autoscaling(settings(upscale_delay_s=33.0))
    assert config is not None
    assert config.upscale_delay_s == config.downscale_delay_s == 0.0


def test_fixed_segmenters_report_all_the_same() -> None:
    config = segmenter_autoscaling(settings())
    assert config is not None
    assert (config.min_replicas, config.max_replicas) == (1, 1)


def test_ray_s_own_policy_is_one_setting_away() -> None:
    requests = settings(policy="ongoing_requests", upscale_delay_s=33.0)
    config = recognizer_autoscaling(requests)
    assert config is not None
    assert config.policy.is_default_policy_function()
    assert config.upscale_delay_s == 33.0
    assert segmenter_autoscaling(requests) is None


def test_without_autoscaling_serve_gets_no_config() -> None:
    assert recognizer_autoscaling(Settings()) is None
    assert segmenter_autoscaling(Settings()) is None


def test_policies_that_traveled_share_one_board_and_their_settings() -> None:
    """Serve sends the module of a policy by value to a process that has not built anything."""
    scaled = settings(max_replicas=7)
    policies = [
        recognizer_autoscaling(scaled),
        segmenter_autoscaling(scaled),
        job_runner_autoscaling(scaled),
    ]
    sent = pickle.dumps(
        [(p.policy.get_serialized_policy_def(), p.policy.policy_kwargs) for p in policies if p]
    )
    code = (
        "import pickle, sys, cloudpickle\n"
        "made = [cloudpickle.loads(d)(**k) for d, k in pickle.load(sys.stdin.buffer)]\n"
        "boards = {id(sys.modules['serve_app.deployments.backlog_board']._board)}\n"
        "boards |= {id(m.__call__.__globals__['leave_backlog'].__globals__['_board'])\n"
        "           for m in made if 'leave_backlog' in m.__call__.__globals__}\n"
        "boards |= {id(m._sample.__globals__['backlog_of'].__globals__['_board'])\n"
        "           for m in made if hasattr(m, '_sample')}\n"
        "jobs = {id(m.__call__.__globals__['leave_jobs'].__globals__['_jobs'])\n"
        "        for m in made if 'leave_jobs' in m.__call__.__globals__}\n"
        "jobs |= {id(m._sample.__globals__['jobs_of'].__globals__['_jobs'])\n"
        "         for m in made if hasattr(m, '_sample')}\n"
        "assert len(made) == 3 and len(boards) == len(jobs) == 1, (boards, jobs)\n"
        "assert made[0]._policy.limits.max_replicas == 7\n"
    )
    subprocess.run([sys.executable, "-c", code], input=sent, check=True, timeout=120)


def test_idle_to_zero_starts_with_one_replica() -> None:
    config = recognizer_autoscaling(settings(min_replicas=0))
    assert config is not None
    assert config.initial_replicas == 1


def test_building_the_configuration_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recognizer_autoscaling(settings())
