"""Synthetic traces: a day with a daily curve and bursts, or an even load."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from serve_app.core.errors import TraceError
from serve_app.planning.trace import Seconds, Trace

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Recordings of similar length; lengths are log-uniform.

    Attributes:
        min_s: shortest.
        max_s: longest.
        audio_share: fraction of all audio in this class.
    """

    min_s: float
    max_s: float
    audio_share: float

    @property
    def mean_s(self) -> float:
        return float((self.max_s - self.min_s) / np.log(self.max_s / self.min_s))


MIX = (
    LengthClass(3.0, 30.0, 0.08),
    LengthClass(30.0, 600.0, 0.32),
    LengthClass(600.0, 3600.0, 0.40),
    LengthClass(3600.0, 10_800.0, 0.20),
)
"""Clips, calls, meetings, and recordings of up to three hours."""


@dataclass(frozen=True, slots=True)
class DayShape:
    """How arrivals are spread over a day.

    Attributes:
        night_share: lowest rate as a fraction of the highest.
        peak_hour: hour of the highest rate.
        num_bursts: bursts per day.
        burst_factor: rate during a burst, as a multiple of the usual one.
        burst_s: length of a burst.
    """

    night_share: float = 0.15
    peak_hour: float = 14.0
    num_bursts: int = 12
    burst_factor: float = 2.0
    burst_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Generation:
    """What to generate.

    Attributes:
        kind: "day" (daily curve and bursts) or "poisson" (an even rate).
        audio_hours: total audio.
        span_s: time over which it arrives.
    """

    kind: str
    audio_hours: float
    span_s: float


_PATTERN = re.compile(r"(day|poisson):(\d+(?:\.\d+)?)h(?:/(\d+(?:\.\d+)?)h)?")


def parse_generation(text: str) -> Generation:
    """Parses `day:100000h`, `poisson:500h` (over 24 hours) or `poisson:500h/2h`.

    Raises:
        TraceError: it is none of these.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or float(match[2]) <= 0 or (match[3] and float(match[3]) <= 0):
        raise TraceError(f"{text!r} is not of the form day:HOURSh or poisson:HOURSh[/SPANh]")
    if match[1] == "day" and match[3]:
        raise TraceError(f"{text!r}: a day has 24 hours")
    span_s = float(match[3]) * 3600 if match[3] else DAY_S
    return Generation(match[1], float(match[2]), span_s)


def generate(
    wanted: Generation,
    seed: int,
    mix: tuple[LengthClass, ...] = MIX,
    shape: DayShape | None = None,
) -> Trace:
    """Returns a trace with the requested audio, to within its last recording."""
    random = np.random.default_rng(seed)
    audio_s = _lengths(wanted.audio_hours * 3600, mix, random)
    if wanted.kind == "day":
        arrival_s = _over_a_day(len(audio_s), shape or DayShape(), random)
    else:
        arrival_s = random.uniform(0.0, wanted.span_s, len(audio_s))
    # Rounded as in a trace file, so that writing and reading changes nothing.
    return Trace(np.sort(arrival_s).round(3), audio_s.round(3), np.zeros(len(audio_s), np.int32))


def _lengths(total_s: float, mix: tuple[LengthClass, ...], random: np.random.Generator) -> Seconds:
    rates = np.array([entry.audio_share / entry.mean_s for entry in mix])
    mean_s = sum(entry.audio_share for entry in mix) / rates.sum()
    num_drawn = int(total_s / mean_s * 1.1) + 100
    classes = random.choice(len(mix), num_drawn, p=rates / rates.sum())
    low = np.log([entry.min_s for entry in mix])[classes]
    high = np.log([entry.max_s for entry in mix])[classes]
    audio_s = np.exp(random.uniform(low, high))
    while audio_s.sum() < total_s:
        audio_s = np.concatenate([audio_s, audio_s])
    num = int(np.searchsorted(np.cumsum(audio_s), total_s)) + 1
    kept: Seconds = audio_s[:num]
    return kept


def _over_a_day(num: int, shape: DayShape, random: np.random.Generator) -> Seconds:
    """Returns arrival times, drawn by inverting the day's cumulative rate."""
    times_s = np.arange(0.0, DAY_S + 1, 10.0)
    angle = (times_s / 3600 - shape.peak_hour) / 24 * 2 * np.pi
    rate = shape.night_share + (1 - shape.night_share) * (0.5 + 0.5 * np.cos(angle)) ** 1.5
    for start_s in random.uniform(0.0, DAY_S - shape.burst_s, shape.num_bursts):
        during = (times_s >= start_s) & (times_s < start_s + shape.burst_s)
        rate = np.where(during, rate * shape.burst_factor, rate)
    total = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
    drawn: Seconds = np.interp(random.uniform(0.0, total[-1], num), total, times_s)
    return drawn
