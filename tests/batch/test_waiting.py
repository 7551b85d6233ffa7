"""What a job waits for on a full cluster."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.batch.waiting import Demand, unplaced_demand, waiting_phrase
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        ({}, None),
        ({"waiting_cpus": 0.0, "waiting_gpus": 0.0}, None),
        ({"waiting_cpus": 0.5}, "waits for 0.5 cores"),
        ({"waiting_cpus": 1.0}, "waits for 1 core"),
        ({"waiting_cpus": 2.25, "waiting_gpus": 1.0}, "waits for 2.25 cores and 1 GPU"),
    ],
)
def test_phrase_names_cores_and_gpus(progress: dict[str, float], told: str | None) -> None:
    assert waiting_phrase(progress) == told


@pytest.mark.ray
def test_actors_without_a_place_are_counted_until_there_is_room(cluster: None) -> None:
    import ray

    class Held:
        def is_up(self) -> bool:
            return True

    holder: Any = ray.remote(Held)
    full = holder.options(num_cpus=4).remote()
    assert ray.get(full.is_up.remote())
    assert unplaced_demand() == Demand()
    late = holder.options(num_cpus=0.5).remote()
    _wait_for(Demand(cpus=0.5))
    ray.kill(full)
    assert ray.get(late.is_up.remote())
    _wait_for(Demand())
    ray.kill(late)


def _wait_for(expected: Demand) -> None:
    wait_until(lambda: unplaced_demand() == expected, unplaced_demand)
