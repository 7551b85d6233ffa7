"""When requests are due."""

from __future__ import annotations

import itertools
import random

import pytest

from loadtests.harness.arrivals import (
    MIXES,
    Mix,
    Rate,
    bursts,
    class_name,
    draw,
    in_order,
    steady,
)

CLIPS = MIXES["clips"]


def times(rate: Rate, duration_s: float, seed: int = 1) -> list[float]:
    return [arrival.at_s for arrival in draw(rate, CLIPS, duration_s, random.Random(seed))]


def test_same_seed_gives_the_same_arrivals() -> None:
    first, second = (draw(steady(3), MIXES["mixed"], 60, random.Random(7)) for _ in range(2))
    assert first == second
    assert first != draw(steady(3), MIXES["mixed"], 60, random.Random(8))


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
    mix = Mix({1.0: 3, 2.0: 1})
    dice = random.Random(1)
    drawn = [mix.draw(dice) for _ in range(8000)]
    assert drawn.count(1.0) / len(drawn) == pytest.approx(0.75, abs=0.02)


def test_mixed_reaches_from_three_seconds_to_three_hours() -> None:
    lengths = list(MIXES["mixed"].weights)
    assert (min(lengths), max(lengths)) == (3.0, 10_800.0)
    assert [class_name(audio_s) for audio_s in lengths] == [
        *("3 s", "15 s", "1 min", "10 min", "1 h", "3 h")
    ]


def test_classes_are_ordered_by_length() -> None:
    assert in_order(["3 h", "3 s", "1 min", "3 s"]) == ["3 s", "1 min", "3 h"]
