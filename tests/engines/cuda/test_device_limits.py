from __future__ import annotations

import pytest
import torch

from serve_app.core.errors import ConfigurationError
from serve_app.engines.cuda.options import configure_device


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigurationError, match="memory_fraction"):
        configure_device(torch.device("cpu"), fraction)


def test_share_of_the_device_caps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    caps: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(
        torch.cuda,
        "set_per_process_memory_fraction",
        lambda fraction, device: caps.append((fraction, device)),
    )
    for fraction in (0.25, None):
        configure_device(torch.device("cuda", 0), fraction)
    assert caps == [(0.25, torch.device("cuda", 0))]
    assert not torch.backends.cuda.matmul.allow_tf32
