"""Services that are simple enough for a formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from serve_app.planning.costs import CallCost, Costs, LineCost, StartCost
from serve_app.planning.service_config import ReplicaGroupShape, ServiceShape
from serve_app.planning.trace import Trace, make_trace
from serve_app.scheduling.admission import NO_LIMITS
from serve_app.scheduling.batch_budget import BatchLimits

FRAME_S = 0.06


def costs(rtfx: float = 1.0, **changes: object) -> Costs:
    """Recognition at `rtfx`; everything else is free."""
    free = LineCost(0.0, 0.0)
    made = Costs(
        name="test",
        origin="a formula",
        recognizer=LineCost(0.0, FRAME_S / rtfx),
        segmenter=free,
        punctuator=free,
        request=free,
        call=CallCost(0.0, 0.0),
        start=StartCost(10.0),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the caller's fields


def shape(num_replicas: int = 1, *, max_items: int = 1, max_calls: int = 10**9) -> ServiceShape:
    """A service whose recognizer is the only place to wait."""
    return ServiceShape(
        num_ingresses=1,
        admission=NO_LIMITS,
        key_admission=NO_LIMITS,
        max_retry_after_s=300.0,
        request_timeout_s=1e9,
        num_segmenters=1,
        segmenter_max_recordings=10**9,
        max_in_flight=8,
        recognizer=ReplicaGroupShape(num_replicas, max_calls, BatchLimits(10**9, max_items)),
        punctuator=None,
    )


def poisson(num: int, rate: float, audio_s: float, seed: int, *, exponential: bool) -> Trace:
    """Arrivals at `rate` a second, of recordings of one length or of exponential ones."""
    random = np.random.default_rng(seed)
    arrivals_s = np.cumsum(random.exponential(1 / rate, num))
    lengths_s = random.exponential(audio_s, num) if exponential else np.full(num, audio_s)
    return make_trace(arrivals_s, np.maximum(lengths_s, FRAME_S))
