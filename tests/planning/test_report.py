"""What a plan's pictures show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serve_app.planning.report import spent_gpu_hours
from serve_app.planning.simulation import simulate
from serve_app.planning.speech import SingleChunks
from serve_app.planning.trace import make_trace
from serve_app.scheduling.autoscaling import ScalingLimits
from tests.planning.models import FRAME_S, costs, shape


def test_gpu_hours_grow_with_the_target_up_to_the_table() -> None:
    limits = ScalingLimits(1, 4, upscale_delay_s=2.0, upscale_step=1, step_period_s=2.0)
    trace = make_trace([number * 0.2 for number in range(300)], [6.0] * 300)
    result = simulate(trace, shape().with_scaling(limits), costs(5.0), SingleChunks(FRAME_S))
    result = replace(result, gpu_hours=2.5)
    spent = spent_gpu_hours(result)
    assert spent[-1] == pytest.approx(2.5)
    steps = np.diff(spent)
    asked = result.timeline.requested[1:]
    assert (steps > 0).all()
    assert steps[asked == asked.max()].mean() > steps[asked == asked.min()].mean()
