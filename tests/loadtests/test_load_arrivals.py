"""When requests are due."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from loadtests.load.arrivals import Arrival, Rate, bursts, draw, ramp, read_trace, square, steady
from loadtests.load.mixes import MIXES, LengthClass, Mix, class_name, in_order

CLIPS = MIXES["clips"]


def times(rate: Rate, duration_s: float, seed: int = 1) -> list[float]:
    return [arrival.at_s for arrival in draw(rate, CLIPS, duration_s, random.Random(seed))]


def test_same_seed_gives_the_same_arrivals() -> None:
    first, second = (
        draw(steady(3), MIXES["mixed"], 60, random.Random(7), num_keys=3) for _ in range(2)
    )
    assert first == second
    assert first != draw(steady(3), MIXES["mixed"], 60, random.Random(8), num_keys=3)


def test_arrivals_are_in_order_and_within_the_duration() -> None:
    due = times(steady(5), 100)
    assert due == sorted(due)
    assert 0 < due[0] < due[-1] < 100


def test_steady_arrivals_have_their_mean_rate() -> None:
    assert len(times(steady(10), 1000)) == pytest.approx(10_000, rel=0.05)


def test_gaps_of_steady_arrivals_are_as_irregular_as_a_poisson_process() -> None:
    due = times(steady(10), 1000)
    gaps = [after - before for before, after in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation / mean == pytest.approx(1.0, abs=0.05)


def test_square_wave_pauses_in_the_second_half_of_a_period() -> None:
    due = times(square(10, 20), 1000)
    assert all(at_s % 20 < 10 for at_s in due)
    assert len(due) == pytest.approx(10_000, rel=0.05)


def test_ramp_sends_three_quarters_in_its_second_half() -> None:
    due = times(ramp(10, 1000), 1000)
    assert sum(at_s > 500 for at_s in due) / len(due) == pytest.approx(0.75, abs=0.02)


def test_bursts_keep_the_mean_and_crowd() -> None:
    due = times(bursts(10, 20_000, random.Random(3)), 20_000)
    assert len(due) == pytest.approx(200_000, rel=0.1)
    counts = [0] * 2000
    for at_s in due:
        counts[int(at_s // 10)] += 1
    # Counts of a Poisson process have a variance that equals their mean.
    mean = sum(counts) / len(counts)
    assert sum((number - mean) ** 2 for number in counts) / len(counts) > 5 * mean


@pytest.mark.parametrize(("per_s", "duration_s"), [(0, 10), (-1, 10), (1, 0)])
def test_nothing_to_draw_is_refused(per_s: float, duration_s: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        draw(steady(per_s), CLIPS, duration_s, random.Random(1))


def test_lengths_follow_their_weights() -> None:
    mix = Mix((LengthClass("a", 1.0, 3), LengthClass("b", 2.0, 1)))
    dice = random.Random(1)
    drawn = [mix.draw(dice) for _ in range(8000)]
    assert drawn.count(1.0) / len(drawn) == pytest.approx(0.75, abs=0.02)
    assert mix.mean_audio_s == pytest.approx(1.25)


def test_mixed_reaches_from_three_seconds_to_three_hours() -> None:
    lengths = [length.audio_s for length in MIXES["mixed"].classes]
    assert (min(lengths), max(lengths)) == (3.0, 10_800.0)
    assert all(class_name(length.audio_s) == length.name for length in MIXES["mixed"].classes)


def test_classes_are_ordered_by_length() -> None:
    assert in_order(["3 h", "3 s", "1 min", "3 s"]) == ["3 s", "1 min", "3 h"]


def test_trace_is_sorted_and_its_keys_numbered(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,audio_s,key\n5,60,b\n1,3,a\n2,7.5,b\n")
    assert read_trace(path) == [
        Arrival(1.0, 3.0, 1),
        Arrival(2.0, 7.5, 0),
        Arrival(5.0, 60.0, 0),
    ]


def test_trace_needs_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,audio_s\n0,3\n")
    assert read_trace(path) == [Arrival(0.0, 3.0)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("arrival_s\n1\n", "lacks the columns"),
        ("", "lacks the columns"),
        ("arrival_s,audio_s\n1,x\n", "line 2: not a number"),
        ("arrival_s,audio_s\n1,3\n2,-1\n", "line 3: out of range"),
        ("arrival_s,audio_s\n1,nan\n", "line 2: out of range"),
        ("arrival_s,audio_s\n1\n", "line 2: not a number"),
    ],
)
def test_damaged_trace_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_trace(path)
