"""One process that imports, loads and answers once; `loading` starts it.

Nothing heavy may be imported here outside of what is measured.
"""

from __future__ import annotations

import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from loadtests.bench.measuring import forget_peak, hold, peak_bytes, report, resident_bytes

OURS, AUTO = "Paraserve", "AutoModel"


@dataclass(frozen=True, slots=True)
class Load:
    """One process from its start to its first answer.

    Attributes:
        torch_s: importing PyTorch, which both need.
        import_s: importing everything else that a recognizer needs.
        ready_s: from there to a model that has answered once.
        imported_bytes: resident after the imports.
        peak_bytes: the most that was resident until the model was ready.
        ready_bytes: resident then.
    """

    torch_s: float
    import_s: float
    ready_s: float
    imported_bytes: int
    peak_bytes: int
    ready_bytes: int


def measure(name: str, directory: Path) -> tuple[Load, object]:
    """Returns the measurement, and the model, which must stay alive."""
    begin_s = time.perf_counter()
    import torch

    torch_s = time.perf_counter()
    if name == OURS:
        import serve_app.engines.paraformer.cpu  # noqa: F401
    else:
        import funasr  # noqa: F401
    imported_s = time.perf_counter()
    torch.set_num_threads(1)
    imported_bytes = resident_bytes()
    forget_peak()
    load_s = time.perf_counter()
    model = _load_ours(directory) if name == OURS else _load_auto(directory)
    ready_s = time.perf_counter() - load_s
    load = Load(
        torch_s - begin_s,
        imported_s - torch_s,
        ready_s,
        imported_bytes,
        peak_bytes(),
        resident_bytes(),
    )
    return load, model


def _load_ours(directory: Path) -> object:
    from serve_app.engines.paraformer.cpu import ParaformerEngine
    from serve_app.packs.pack import open_pack

    # It warms up by itself.
    return ParaformerEngine(open_pack(directory))


def _load_auto(directory: Path) -> object:
    import numpy as np
    from funasr import AutoModel

    model = AutoModel(
        model=str(directory),
        device="cpu",
        ncpu=1,
        disable_update=True,
        disable_pbar=True,
        log_level="ERROR",
    )
    noise = np.random.default_rng(0).integers(-1000, 1000, 16_000).astype(np.float32)
    model.generate(noise / 32_768)
    return model


if __name__ == "__main__":
    measured, kept = measure(sys.argv[1], Path(sys.argv[2]))
    report(astuple(measured))
    hold()
