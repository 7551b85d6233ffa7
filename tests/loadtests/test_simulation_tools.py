"""What the comparison of service and simulator measures with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from loadtests.simulation.agreement import Pair, Waits, agreement, joined
from loadtests.simulation.calibration import Speech, Spent, calibrate, fit_batches, handovers_s
from loadtests.simulation.cores import CoresWatch, Placement, kept_on, placement_for
from loadtests.simulation.service_run import RealRun
from loadtests.simulation.stopwatch import BatchRecord
from loadtests.simulation.traffic import LENGTHS_S, MEAN_S, Traffic, make_traffic
from serve_app.core.errors import ConfigurationError
from serve_app.planning.speech import DecodedBlock, Group
from serve_app.planning.trace import Seconds


def record(arrived_s: float, began_s: float, ended_s: float, frames: int = 100) -> BatchRecord:
    return BatchRecord(1, began_s, ended_s, ended_s - began_s, frames, (arrived_s,))


def waits(waited_s: Seconds) -> Waits:
    return Waits(np.linspace(0.0, 100.0, len(waited_s)), waited_s)


def test_the_parts_of_a_batchs_time_are_found_again() -> None:
    random = np.random.default_rng(0)
    frames, items = random.integers(20, 600, 50), random.integers(1, 9, 50)
    took_s = 0.05 + 0.002 * frames + 0.01 * items
    cost = fit_batches(frames.tolist(), items.tolist(), took_s.tolist())
    assert cost.of(300, 4) == pytest.approx(0.05 + 0.6 + 0.04, rel=1e-6)


def test_no_part_of_a_batchs_time_is_negative() -> None:
    cost = fit_batches([10, 20, 30], [1, 1, 1], [0.0, 0.1, 0.3])
    assert min(cost.fixed_s, cost.unit_s, cost.item_s) >= 0


def test_a_batch_waits_only_once_both_model_and_chunk_are_available() -> None:
    records = [record(0.0, 0.1, 1.0), record(0.5, 1.25, 2.0), record(3.0, 3.5, 4.0)]
    assert handovers_s(records) == pytest.approx([0.1, 0.25, 0.5])


def test_costs_come_from_the_chosen_batches_and_leave_out_idling() -> None:
    group = Group((100,), 100, 6.0)
    speech = Speech({10.0: (DecodedBlock(10.0, (group,)),)}, 0.01, 5.0)
    cpu_s = {"Recognizer": 9.0, "Segmenter": 3.0, "Punctuator": 4.0, "Ingress": 6.0}
    spent = Spent(
        10.0, cpu_s, 0.0, 0.0, (10.0, 10.0),
        (record(0.0, 0.0, 1.0), record(1.0, 1.0, 5.0)),
    )  # fmt: skip
    idle = dict.fromkeys(cpu_s, 0.1)
    costs = calibrate(spent, [True, False], idle, speech, 6.0, "test")
    assert costs.recognizer.of(100, 1) == pytest.approx(1.0)
    # Two requests with a group each: (3 - 1 idle - 0.2 decoding) / 2.
    assert costs.call.cpu_s + costs.call.answer_s == pytest.approx(0.9)
    assert costs.request.fixed_s == pytest.approx(2.5)
    assert costs.punctuator.unit_s == pytest.approx(3.0 / 60)


def test_equal_waits_agree_with_certainty() -> None:
    same = waits(np.random.default_rng(0).exponential(1.0, 1000))
    found = agreement(Pair(same, same), 95)
    assert found.holds
    assert (found.ratio, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("factor", "holds"), [(0.8, False), (0.9, True), (1.1, True), (1.2, False)]
)
def test_waits_agree_within_the_tolerance_only(factor: float, holds: bool) -> None:
    real = waits(np.random.default_rng(0).exponential(1.0, 1000))
    found = agreement(Pair(real, waits(real.waited_s * factor)), 50)
    assert found.holds == holds
    assert found.low <= found.ratio <= found.high + 1e-9


def test_traces_are_compared_one_after_another() -> None:
    short, long = waits(np.full(5, 1.0)), waits(np.full(7, 3.0))
    pair = joined([Pair(short, short), Pair(long, short)])
    assert pair.real.waited_s.tolist() == [1.0] * 5 + [3.0] * 7
    assert pair.simulated.waited_s.tolist() == [1.0] * 10
    # Each of 0 to 100 s; the second begins a stretch of the bootstrap's anew.
    assert pair.real.arrived_s.max() == pair.simulated.arrived_s.max() == 210.0


def test_traffic_asks_for_its_loads() -> None:
    traffic, capacity = Traffic(), 1000.0
    trace = make_traffic(traffic, capacity, 2400.0, 0)
    assert set(trace.audio_s.tolist()) <= set(LENGTHS_S)
    assert float(trace.audio_s.mean()) == pytest.approx(MEAN_S, rel=0.05)
    asked = float(trace.audio_s.sum()) / 2400.0 / capacity
    assert asked == pytest.approx(traffic.mean_load, rel=0.05)


def test_every_other_stretch_is_for_costs() -> None:
    chosen = Traffic(every_s=10.0).is_for_costs(np.array([0.0, 9.9, 10.0, 19.9, 20.0]))
    assert chosen.tolist() == [True, True, False, False, True]


def test_more_cores_than_exist_cannot_be_lent() -> None:
    with pytest.raises(ConfigurationError, match="cores"):
        placement_for(10_000)


def test_a_process_gets_its_cores_back() -> None:
    before = os.sched_getaffinity(0)
    with kept_on((min(before),)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_cpu_time_is_told_apart_by_whose_it_is() -> None:
    this = psutil.Process()
    watch = CoresWatch({"Recognizer": [this], "Ingress": []}, Placement((0,), (0,)))
    with watch as watched:
        sum(range(2_000_000))
    assert watched.used_s["Recognizer"] > 0
    assert watched.used_s["Ingress"] == 0
    assert watched.elapsed_s > 0
    assert min(watched.others_s, watched.intruded) >= 0


def test_real_run_is_kept_in_a_file(tmp_path: Path) -> None:
    cpu_s = {"Recognizer": 9.0}
    spent = Spent(10.0, cpu_s, 0.1, 0.2, (3.0, 6.0), (record(0.0, 0.1, 1.0),))
    real = RealRun((0.5, 1.5), 100.0, (0.2, 0.3), spent, {"Recognizer": 0.1}, 0.01, 1)
    real.keep(tmp_path / "trace.json")
    assert RealRun.kept(tmp_path / "trace.json") == real
    assert real.trace.audio_s.tolist() == [3.0, 6.0]
