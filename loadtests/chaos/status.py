"""What Serve says of the application, asked without ever being waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

_PERIOD_S = 0.5
_STALE_S = 4.0
_GIVEN_UP_S = 12.0


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One deployment, as the controller knows it.

    Attributes:
        healthy: whether it has all its replicas, and they are well.
        num_replicas: in any state.
    """

    healthy: bool
    num_replicas: int


class StatusWatch:
    """Asks in a thread of its own, since a controller that is gone may never answer.

    Args:
        app_name: Serve's name of the application.
    """

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._generation = 0
        self._answered_s = 0.0
        self._asked_s = 0.0
        self._states: dict[str, DeploymentState] = {}

    def states(self) -> Mapping[str, DeploymentState] | None:
        """Returns the deployments by name, None while there is no fresh answer."""
        now_s = time.monotonic()
        if now_s - max(self._answered_s, self._asked_s) > _GIVEN_UP_S:
            self._asked_s = now_s
            self._generation += 1
            threading.Thread(
                target=self._watch, args=(self._generation,), name="serve-status", daemon=True
            ).start()
        return self._states if now_s - self._answered_s <= _STALE_S else None

    def stop(self) -> None:
        """Lets the threads end as soon as they are answered."""
        self._generation += 1

    def _watch(self, generation: int) -> None:
        from ray import serve

        while self._generation == generation:
            try:
                deployments = serve.status().applications[self._app_name].deployments
            except Exception:  # whatever it is, there is no answer
                time.sleep(_PERIOD_S)
                continue
            states = {
                name: DeploymentState(
                    deployment.status == "HEALTHY", sum(deployment.replica_states.values())
                )
                for name, deployment in deployments.items()
            }
            if self._generation == generation:
                self._states = states
                self._answered_s = time.monotonic()
            time.sleep(_PERIOD_S)
