"""The fused kernel in Triton's interpreter, which needs no device, only Triton."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

_PROBE = """
import torch
from serve_app.engines.cuda.fsmn_memory import probe
from serve_app.engines.cuda.fsmn_memory_kernel import fsmn_memory_fused
kinds = (torch.float32, torch.float16)
print(*(probe(fsmn_memory_fused, torch.device("cpu"), kind) for kind in kinds))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs Triton, which PyTorch's builds for CPUs do not bring (pip install triton)",
)
def test_fused_memory_equals_the_reference() -> None:
    # The interpreter is chosen when Triton is imported, so in a process of its own.
    ended = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    exact, half = map(float, ended.stdout.split())
    assert exact <= 1e-5
    assert half <= 1e-2
