"""Which jobs of a cluster still have the actor that looks after their driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ray.exceptions import RayError
from ray.util.state import StateApiClient
from ray.util.state.common import ActorState, ListApiOptions, StateResource
from ray.util.state.exception import RayStateApiException

LivingSupervisors: TypeAlias = Callable[[], frozenset[str] | None]
"""Returns the submission ids of the jobs that have one; None if that cannot be told."""

# Ray 2.60, dashboard/modules/job/common.py: what it calls these actors, and where.
_NAME = "_ray_internal_job_actor_"
_NAMESPACE = "SUPERVISOR_ACTOR_RAY_NAMESPACE"
_MAX_ACTORS = 10_000
_TIMEOUT_S = 10

_LOG = logging.getLogger(__name__)


def ask_for_supervisors(address: str, headers: Mapping[str, str] | None) -> frozenset[str] | None:
    """Asks the state API of a cluster.

    Args:
        address: of Ray's dashboard.
        headers: with Ray's token; None where it asks for none.
    """
    options = ListApiOptions(
        limit=_MAX_ACTORS, timeout=_TIMEOUT_S, filters=[("ray_namespace", "=", _NAMESPACE)]
    )
    try:
        client = StateApiClient(address, headers=dict(headers or {}))
        actors = client.list(StateResource.ACTORS, options, raise_on_missing_output=False)
    except (RayStateApiException, RayError, RuntimeError, OSError) as error:
        # What Ray's Job API says is all that is known, then.
        _LOG.warning("cannot tell whether jobs are looked after: %s", error)
        return None
    if len(actors) >= _MAX_ACTORS:
        return None
    return frozenset(
        str(actor.name).removeprefix(_NAME)
        for actor in actors
        if isinstance(actor, ActorState)
        and actor.state != "DEAD"
        and str(actor.name).startswith(_NAME)
    )
