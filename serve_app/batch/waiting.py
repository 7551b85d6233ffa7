"""The resources that a job's actors wait for on a full cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_UNPLACED = ("PENDING_CREATION", "RESTARTING")
_NO_WORKER = (b"", b"\xff" * 28)
"""Worker ids of actors that have no process yet. Their node is one that Ray has asked for room."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Resources of actors that have no place on the cluster."""

    cpus: float = 0.0
    gpus: float = 0.0


def unplaced_demand() -> Demand:
    """Returns what this job's actors need to start, those aside that Ray has placed on a node.

    Raises:
        RayError: the control store cannot be reached.
    """
    import ray
    from ray._private import state
    from ray.core.generated import gcs_pb2

    accessor = state.state._connect_and_get_accessor()
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    cpus = gpus = 0.0
    for name in _UNPLACED:
        for table in accessor.get_actor_table(job, name):
            actor = gcs_pb2.ActorTableData.FromString(table)  # type: ignore[attr-defined]  # generated
            if actor.address.worker_id in _NO_WORKER:
                cpus += actor.required_resources.get("CPU", 0.0)
                gpus += actor.required_resources.get("GPU", 0.0)
    return Demand(cpus, gpus)


def waiting_phrase(progress: Mapping[str, Any]) -> str | None:
    """Returns what the progress of a job says it waits for; None if it waits for nothing."""
    parts = []
    for name, unit in (("waiting_cpus", "core"), ("waiting_gpus", "GPU")):
        number = progress.get(name) or 0
        if number:
            parts.append(f"{number:g} {unit}{'' if number == 1 else 's'}")
    return f"waits for {' and '.join(parts)}" if parts else None
