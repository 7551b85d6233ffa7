from __future__ import annotations

import pytest
import torch

from serve_app.core.errors import DeviceUnavailable
from serve_app.engines.devices import open_device


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_gpu_has_its_index(monkeypatch: pytest.MonkeyPatch, name: str, index: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert open_device(name) == torch.device("cuda", index)


@pytest.mark.parametrize("name", ["cuda:2", "mps", "abacus"])
def test_unavailable_device_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceUnavailable, match=name):
        open_device(name)


def test_cpu_is_the_cpu() -> None:
    assert open_device("cpu") == torch.device("cpu")
