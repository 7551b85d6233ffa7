"""Do the recognizers follow the load, and leave its waves alone?

    python -m loadtests square-wave [--minutes 10] [--replicas 3] [--out square_wave.png]

Starts the demo profile on this machine with 1 to `replicas` recognizers that scale by
queued audio, measures how much audio one of them takes, and sends a square wave: half
of each period more than that, half of it next to nothing. Then it sends nothing until
the recognizers have gone down again. Prints each change of the number of replicas asked
for, how long it came after the load passed the threshold, and the changes of direction;
draws load and replicas over time. The senders run on the same cores as the service.

Exit code 0 if the number went up within the configured delay (and the time that reports
take), never changed direction during the wave, came down to 1 afterwards, and every
request was answered.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from loadtests.ports import free_port
from serve_app.cli.serve import demo_recording
from serve_app.client import Paraserve, TranscriptionRequest
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings

_RATE_HZ = 16_000
_CLIP_S = 60.0
_SAMPLE_S = 1.0
# Those under way have half of their audio left: twice what one replica may have must fit.
_MAX_SENDERS = 80
# A report may be as old as its interval, and the controller looks a few times a second.
_REPORT_SLACK_S = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The wave, and how the recognizers may react.

    Attributes:
        wave_s: length of the whole wave.
        period_s: of one up and one down.
        load: audio that is sent while it is up, as a multiple of what one replica takes.
        max_replicas: bound of the recognizers.
        target_drain_s: see `recognizer.deployment.autoscaling`.
        upscale_delay_s: see there.
    """

    wave_s: float
    period_s: float
    load: float
    max_replicas: int
    target_drain_s: float = 5.0
    upscale_delay_s: float = 5.0

    @property
    def downscale_delay_s(self) -> float:
        """Outlasts a peak that is missed; the default of 300 s is five of these waves."""
        return 2.0 * self.period_s

    @property
    def settle_s(self) -> float:
        """Longest that going down to one may take."""
        return self.downscale_delay_s + 10.0 * self.max_replicas + 30.0

    def settings(self) -> Settings:
        scaling = {
            "min_replicas": 1,
            "max_replicas": self.max_replicas,
            "target_drain_s": self.target_drain_s,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
            "step_period_s": 10.0,
            "upscale_step": 1,
        }
        return Settings.model_validate(
            {
                "profile": "demo",
                "http": {"port": free_port()},
                "cluster": {"num_cpus": 2 + self.max_replicas},
                # What waits in the ingress's line is not seen by the policy.
                "admission": {"max_running": _MAX_SENDERS, "max_waiting": _MAX_SENDERS},
                "recognizer": {"deployment": {"num_cpus": 0.5, "autoscaling": scaling}},
            }
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen `at_s` after the start of the wave."""

    at_s: float
    target: int
    running: int
    backlog_s: float
    rtfx: float


@dataclass(slots=True)
class Run:
    """What came of it."""

    samples: list[Sample] = field(default_factory=list)
    num_sent: int = 0
    num_failed: int = 0

    def changes(self) -> list[tuple[float, int, int]]:
        """Returns the changes of the target: when, from, to."""
        return [
            (new.at_s, old.target, new.target)
            for old, new in pairwise(self.samples)
            if old.target != new.target
        ]

    def num_turns(self, until_s: float) -> int:
        """Returns how often the target changed its direction."""
        signs = [new > old for at_s, old, new in self.changes() if at_s <= until_s]
        return sum(a != b for a, b in pairwise(signs))

    def first_upscale_delay_s(self, target_drain_s: float) -> float | None:
        """Returns the time from the load's passing the threshold for good to the first
        replica more; None if there was none."""
        over_since: float | None = None
        for sample in self.samples:
            if sample.target > 1:
                return None if over_since is None else sample.at_s - over_since
            if sample.backlog_s <= sample.rtfx * target_drain_s or sample.rtfx <= 0:
                over_since = None
            elif over_since is None:
                over_since = sample.at_s
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests square-wave", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the wave")
    parser.add_argument("--period", type=float, help="seconds; a tenth of the wave if unset")
    parser.add_argument("--load", type=float, default=1.5, help="times one replica's speed")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("square_wave.png"))
    arguments = parser.parse_args()
    period_s = arguments.period or max(40.0, arguments.minutes * 6)
    plan = Plan(arguments.minutes * 60, period_s, arguments.load, arguments.replicas)
    settings = plan.settings()
    prepare_environment(settings)
    clip = _clip()
    with (
        running(settings, lambda message: print(message, flush=True)) as application,
        Paraserve(application.url, "", timeout_s=600, max_retries=0) as client,
    ):
        rtfx = _calibrate(client, clip)
        print(f"one recognizer takes {rtfx:.0f} s of audio a second", flush=True)
        run = _drive(client, clip, plan, rtfx, _Watch(settings.app_name))
    _draw(run, plan, arguments.out)
    return _report(run, plan)


def _clip() -> bytes:
    samples, _ = soundfile.read(demo_recording().path, dtype="int16")
    repeated = np.tile(samples, int(_CLIP_S * _RATE_HZ / len(samples)) + 1)
    file = io.BytesIO()
    soundfile.write(file, repeated[: int(_CLIP_S * _RATE_HZ)], _RATE_HZ, format="FLAC")
    return file.getvalue()


def _send(client: Paraserve, clip: bytes) -> None:
    client.transcribe_as(clip, "json", TranscriptionRequest(model="whisper-1", stages=("asr",)))


class _Watch:
    """Reads the state of the service from Ray Serve and its replicas."""

    def __init__(self, app_name: str) -> None:
        from ray import serve
        from ray.serve.context import _get_global_client

        self._app_name = app_name
        client = _get_global_client()
        if client is None:
            raise RuntimeError("Serve does not run")
        self._client = client
        self._segmenter = serve.get_deployment_handle("Segmenter", app_name)
        self._recognizer = serve.get_deployment_handle("Recognizer", app_name)

    def sample(self, at_s: float) -> Sample:
        applications = self._client.get_serve_details()["applications"]
        recognizer = applications[self._app_name]["deployments"]["Recognizer"]
        states = [replica["state"] for replica in recognizer["replicas"]]
        segmenter_load = self._segmenter.record_autoscaling_stats.remote()
        recognizer_load = self._recognizer.record_autoscaling_stats.remote()
        return Sample(
            at_s,
            recognizer["target_num_replicas"],
            states.count("RUNNING"),
            segmenter_load.result(timeout_s=60)["backlog_audio_s"],
            recognizer_load.result(timeout_s=60)["rtfx"],
        )


def _calibrate(client: Paraserve, clip: bytes) -> float:
    """Returns the audio per second that the service takes with one recognizer."""
    _send(client, clip)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for answer in [pool.submit(_send, client, clip) for _ in range(8)]:
            answer.result()
    return 8 * _CLIP_S / (time.monotonic() - began)


def _drive(client: Paraserve, clip: bytes, plan: Plan, rtfx: float, watch: _Watch) -> Run:
    run, stop, began = Run(), threading.Event(), time.monotonic()

    def observe() -> None:
        while not stop.wait(_SAMPLE_S):
            run.samples.append(watch.sample(time.monotonic() - began))

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        with ThreadPoolExecutor(_MAX_SENDERS) as pool:
            answers = _send_wave(lambda: pool.submit(_send, client, clip), plan, rtfx, began)
        run.num_sent = len(answers)
        run.num_failed = sum(answer.exception() is not None for answer in answers)
        deadline = time.monotonic() + plan.settle_s
        while time.monotonic() < deadline and not (run.samples and run.samples[-1].target == 1):
            stop.wait(_SAMPLE_S)
    finally:
        stop.set()
        observer.join()
    return run


def _send_wave(
    send: Callable[[], Future[None]], plan: Plan, rtfx: float, began: float
) -> list[Future[None]]:
    answers: list[Future[None]] = []
    while (at_s := time.monotonic() - began) < plan.wave_s:
        is_up = at_s % plan.period_s < plan.period_s / 2
        under_way = sum(not answer.done() for answer in answers)
        if is_up and under_way < _MAX_SENDERS:
            answers.append(send())
        time.sleep(_CLIP_S / (plan.load * rtfx) if is_up else _SAMPLE_S)
    return answers


def _draw(run: Run, plan: Plan, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (load, replicas) = pyplot.subplots(2, sharex=True)
    times = [sample.at_s for sample in run.samples]
    load.plot(times, [sample.backlog_s for sample in run.samples])
    threshold = [sample.rtfx * plan.target_drain_s for sample in run.samples]
    load.plot(times, threshold, linestyle="--", label="what one replica may have")
    load.set_ylabel("audio to recognize [s]")
    replicas.step(times, [sample.target for sample in run.samples], where="post", label="target")
    replicas.step(times, [s.running for s in run.samples], where="post", label="running")
    replicas.set(xlabel="time [s]", ylabel="recognizers")
    for axes in (load, replicas):
        axes.legend()
    for start in np.arange(0.0, plan.wave_s, plan.period_s):
        load.axvspan(start, start + plan.period_s / 2, alpha=0.1)
    figure.savefig(path, dpi=120)
    print(f"drawn: {path}")


def _report(run: Run, plan: Plan) -> int:
    for at_s, old, new in run.changes():
        print(f"{at_s:7.1f} s  {old} -> {new} replicas")
    delay_s = run.first_upscale_delay_s(plan.target_drain_s)
    num_turns = run.num_turns(plan.wave_s)
    final = run.samples[-1].target if run.samples else 0
    peak_s = max((sample.backlog_s for sample in run.samples), default=0.0)
    told = f"{delay_s:.1f} s" if delay_s is not None else "none"
    print(f"threshold to scale-up: {told} (configured {plan.upscale_delay_s:.0f} s)")
    print(f"changes of direction during {plan.wave_s / plan.period_s:.0f} waves: {num_turns}")
    print(f"replicas at the end: {final}; most audio waiting: {peak_s:.0f} s")
    print(f"requests: {run.num_sent} sent, {run.num_failed} failed")
    followed = delay_s is not None and delay_s <= plan.upscale_delay_s + _REPORT_SLACK_S
    return 0 if followed and num_turns == 0 and final == 1 and run.num_failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
