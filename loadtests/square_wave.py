"""Do the recognizers follow the load, and leave its waves alone?

    python -m loadtests square-wave [--minutes 10] [--replicas 3]

Starts the demo profile on this machine with 1 to `replicas` recognizers that scale by
queued audio, measures how much audio one of them takes, and sends a square wave: half
of each period more than that, half of it next to nothing. Then it sends nothing until
the recognizers have gone down again. Reports each change of the number of replicas asked
for, how long it came after the load passed the threshold, and the changes of direction;
draws load and replicas over time. The sender runs on the same cores as the service.

Exit code 0 if the number went up within the configured delay (and the time that reports
take), never changed direction during the wave, came down to 1 afterwards, and every
request was answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from loadtests.harness.clips import repeated
from loadtests.harness.loops import closed_loop
from loadtests.harness.report import Report, parse, parser
from loadtests.serving import own_settings, service
from serve_app.client import AsyncParaserve, ClientError, TranscriptionRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLIP_S = 60.0
_SAMPLE_S = 1.0
# Those under way have half of their audio left: twice what one replica may have must fit.
_MAX_SENDERS = 80
# A report may be as old as its interval, and the controller looks a few times a second.
_REPORT_SLACK_S = 4.0
_REQUEST = TranscriptionRequest(model="whisper-1", stages=("asr",))


@dataclass(frozen=True, slots=True)
class Plan:
    """The wave, and how the recognizers may react.

    Attributes:
        wave_s: length of the whole wave.
        load: audio that is sent while it is up, as a multiple of what one replica takes.
        max_replicas: bound of the recognizers.
        target_drain_s: see `recognizer.deployment.autoscaling`.
        upscale_delay_s: see there.
    """

    wave_s: float
    load: float
    max_replicas: int
    target_drain_s: float = 5.0
    upscale_delay_s: float = 5.0

    @property
    def period_s(self) -> float:
        """Length of one up and one down."""
        return max(40.0, self.wave_s / 10)

    @property
    def downscale_delay_s(self) -> float:
        """Outlasts a peak that is missed; the default of 300 s is five of these waves."""
        return 2.0 * self.period_s

    @property
    def settle_s(self) -> float:
        """Longest that going down to one may take."""
        return self.downscale_delay_s + 10.0 * self.max_replicas + 30.0

    def assignments(self) -> Iterable[str]:
        scaling = {
            "min_replicas": 1,
            "max_replicas": self.max_replicas,
            "target_drain_s": self.target_drain_s,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
            "step_period_s": 10.0,
            "upscale_step": 1,
        }
        yield f"cluster.num_cpus={2 + self.max_replicas}"
        # What waits in the ingress's line is not seen by the policy.
        yield f"admission.max_running={_MAX_SENDERS}"
        yield f"admission.max_waiting={_MAX_SENDERS}"
        yield "recognizer.deployment.num_cpus=0.5"
        for name, value in scaling.items():
            yield f"recognizer.deployment.autoscaling.{name}={value}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen `at_s` after the start of the wave."""

    at_s: float
    target: int
    running: int
    backlog_s: float
    rtfx: float


def changes(samples: Sequence[Sample]) -> list[tuple[float, int, int]]:
    """Returns the changes of the target: when, from, to."""
    return [
        (new.at_s, old.target, new.target)
        for old, new in pairwise(samples)
        if old.target != new.target
    ]


def num_turns(samples: Sequence[Sample], until_s: float) -> int:
    """Returns how often the target changed its direction."""
    signs = [new > old for at_s, old, new in changes(samples) if at_s <= until_s]
    return sum(a != b for a, b in pairwise(signs))


def first_upscale_delay_s(samples: Sequence[Sample], target_drain_s: float) -> float | None:
    """Returns the time from the load's passing the threshold for good to the first
    replica more; None if there was none."""
    over_since: float | None = None
    for sample in samples:
        if sample.target > 1:
            return None if over_since is None else sample.at_s - over_since
        if sample.backlog_s <= sample.rtfx * target_drain_s or sample.rtfx <= 0:
            over_since = None
        elif over_since is None:
            over_since = sample.at_s
    return None


def main(given: Sequence[str] | None = None) -> int:
    made = parser("square-wave", __doc__)
    made.add_argument("--minutes", type=float, default=10.0, help="length of the wave")
    made.add_argument("--load", type=float, default=1.5, help="times one replica's speed")
    made.add_argument("--replicas", type=int, default=3)
    options = parse(made, given)
    plan = Plan(options.minutes * 60, options.load, options.replicas)
    settings = own_settings(tuple(plan.assignments()))
    with service(None, settings) as url, Report("square-wave", options) as report:
        asyncio.run(_run(url, plan, _Watch(settings.app_name), report))
    return report.exit_code


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

    def sample(self, began_s: float) -> Sample:
        applications = self._client.get_serve_details()["applications"]
        recognizer = applications[self._app_name]["deployments"]["Recognizer"]
        states = [replica["state"] for replica in recognizer["replicas"]]
        segmenter_load = self._segmenter.record_autoscaling_stats.remote()
        recognizer_load = self._recognizer.record_autoscaling_stats.remote()
        return Sample(
            time.monotonic() - began_s,
            recognizer["target_num_replicas"],
            states.count("RUNNING"),
            segmenter_load.result(timeout_s=60)["backlog_audio_s"],
            recognizer_load.result(timeout_s=60)["rtfx"],
        )


async def _run(url: str, plan: Plan, watch: _Watch, report: Report) -> None:
    clip = repeated(_CLIP_S)
    samples: list[Sample] = []
    async with AsyncParaserve(url, "", timeout_s=600.0, max_retries=0) as client:

        async def send(_: object = None) -> bool:
            try:
                await client.transcribe_as(clip, "json", _REQUEST)
            except ClientError:
                return False
            return True

        await send()
        began_s = time.monotonic()
        await closed_loop(range(8), send, 4)
        rtfx = 8 * _CLIP_S / (time.monotonic() - began_s)
        report.say(f"one recognizer takes {rtfx:.0f} s of audio a second")
        report.table("Changes of the number of recognizers", ("at s", "from", "to"))
        report.draw(partial(_draw, samples, plan))
        began_s = time.monotonic()
        observing = asyncio.create_task(_observe(watch, began_s, samples, report))
        answers: list[asyncio.Task[bool]] = []
        while (at_s := time.monotonic() - began_s) < plan.wave_s:
            is_up = at_s % plan.period_s < plan.period_s / 2
            if is_up and sum(not answer.done() for answer in answers) < _MAX_SENDERS:
                answers.append(asyncio.create_task(send()))
            await asyncio.sleep(_CLIP_S / (plan.load * rtfx) if is_up else _SAMPLE_S)
        answered = await asyncio.gather(*answers)
        deadline = time.monotonic() + plan.settle_s
        while time.monotonic() < deadline:
            await asyncio.sleep(_SAMPLE_S)
            if observing.done() or samples[-1].target == 1:
                break
        observing.cancel()
        with suppress(asyncio.CancelledError):
            await observing
    report.promise(
        "every request is answered", f"{sum(answered)} of {len(answered)}", all(answered)
    )
    judge(report, samples, plan)


async def _observe(watch: _Watch, began_s: float, samples: list[Sample], report: Report) -> None:
    while True:
        samples.append(await asyncio.to_thread(watch.sample, began_s))
        report.rows((f"{at_s:.1f}", old, new) for at_s, old, new in changes(samples))
        await asyncio.sleep(_SAMPLE_S)


def judge(report: Report, samples: Sequence[Sample], plan: Plan) -> None:
    """Adds how the recognizers followed the wave."""
    delay_s = first_upscale_delay_s(samples, plan.target_drain_s)
    limit_s = plan.upscale_delay_s + _REPORT_SLACK_S
    report.promise(
        f"a recognizer more within {plan.upscale_delay_s:.0f} s (and {_REPORT_SLACK_S:.0f} s of "
        "reports) of passing the threshold",
        "none" if delay_s is None else f"{delay_s:.1f} s",
        delay_s is not None and delay_s <= limit_s,
    )
    turns = num_turns(samples, plan.wave_s)
    waves = f"in {plan.wave_s / plan.period_s:.0f} waves"
    report.promise("no change of direction during the wave", f"{turns} {waves}", turns == 0)
    final = samples[-1].target if samples else 0
    report.promise("one recognizer at the end", str(final), final == 1)
    report.note(f"most audio waiting: {max((s.backlog_s for s in samples), default=0.0):.0f} s")


def _draw(samples: Sequence[Sample], plan: Plan, figure: Figure) -> None:
    load, replicas = figure.subplots(2, sharex=True)
    times = [sample.at_s for sample in samples]
    load.plot(times, [sample.backlog_s for sample in samples])
    threshold = [sample.rtfx * plan.target_drain_s for sample in samples]
    load.plot(times, threshold, linestyle="--", label="what one replica may have")
    load.set_ylabel("audio to recognize [s]")
    replicas.step(times, [sample.target for sample in samples], where="post", label="target")
    replicas.step(times, [s.running for s in samples], where="post", label="running")
    replicas.set(xlabel="time [s]", ylabel="recognizers")
    for axes in (load, replicas):
        axes.legend()
    for wave in range(int(plan.wave_s / plan.period_s)):
        start_s = wave * plan.period_s
        load.axvspan(start_s, start_s + plan.period_s / 2, alpha=0.1)


if __name__ == "__main__":
    sys.exit(main())
