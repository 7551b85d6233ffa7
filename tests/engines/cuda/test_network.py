from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar

import pytest
import torch
import yaml

from serve_app.core.errors import PackError
from serve_app.engines.cuda.buckets import BucketPlan
from serve_app.engines.cuda.network import GpuParaformerNet
from serve_app.packs.pack import open_pack
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer, write_paraformer

pytestmark = pytest.mark.slow

T = TypeVar("T")
META = torch.device("meta")
PLAN = BucketPlan(2000, tokens_per_row=0.5)


def _on_meta(part: T) -> T:
    """Moves every tensor that an object of the package holds to where there are no values."""
    if isinstance(part, torch.Tensor):
        return torch.empty(part.shape, dtype=part.dtype, device=META)  # type: ignore[return-value]
    if isinstance(part, list):
        return [_on_meta(item) for item in part]  # type: ignore[return-value]
    if isinstance(part, dict):
        return {key: _on_meta(item) for key, item in part.items()}  # type: ignore[return-value]
    if type(part).__module__.startswith("serve_app.engines.cuda"):
        names = (
            [field.name for field in dataclasses.fields(part)]
            if dataclasses.is_dataclass(part)
            else list(vars(part))
        )
        for name in names:
            object.__setattr__(part, name, _on_meta(getattr(part, name)))
    return part


@pytest.mark.parametrize("model_class", ["Paraformer", "BiCifParaformer", "SeacoParaformer"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_network_never_synchronizes_with_the_host(
    tmp_path: Path, model_class: str, dtype: torch.dtype
) -> None:
    # A tensor on `meta` has no values to look at, and does not mix with one on the
    # CPU: what runs there can be captured as a graph.
    pack = tiny_paraformer(tmp_path / "tiny", TinyParaformer(model_class))
    net = GpuParaformerNet(pack, torch.device("cpu"), dtype, PLAN.buckets()[0])
    # Only the encoder's table of positions is made on demand.
    net._encoder._table(512, torch.device("cpu"))
    net = _on_meta(net)
    for bucket in PLAN.buckets():
        size = net.frontend.num_samples(bucket.rows, bucket.sequences)
        with torch.inference_mode():
            net.compute(
                bucket,
                torch.empty(size, dtype=torch.int16, device=META),
                torch.empty(bucket.sequences, dtype=torch.int32, device=META),
                torch.empty(net.layout(bucket).num_bytes, dtype=torch.uint8, device=META),
            )


def test_other_threshold_than_one_is_refused(tmp_path: Path) -> None:
    directory = write_paraformer(tmp_path / "tiny")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config["predictor_conf"]["threshold"] = 0.9
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(PackError, match=r"threshold: 0\.9"):
        GpuParaformerNet(
            open_pack(directory), torch.device("cpu"), torch.float32, PLAN.buckets()[0]
        )
