from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.core.errors import ConfigurationError, PackCorrupt
from serve_app.core.ports import Punctuator
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.engines.cuda.ct_transformer import GpuCtTransformer
from serve_app.engines.cuda.options import GpuOptions
from serve_app.packs import PackContents, PackStore, resolve

pytestmark = pytest.mark.slow

ON_CPU = GpuOptions(device="cpu", dtype="float32", max_batch_rows=1000)


@pytest.fixture(scope="module")
def pack() -> PackContents:
    return resolve("ct-punc-demo", PackStore(), fetch=False)


@pytest.fixture(scope="module")
def reference(pack: PackContents) -> CtTransformerEngine:
    return CtTransformerEngine(pack)


@pytest.fixture(scope="module")
def engine(pack: PackContents) -> GpuCtTransformer:
    return GpuCtTransformer(pack, ON_CPU)


def _texts(pack: PackContents, lengths: list[int], seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    known = [token for token in pack.tokens if len(token) == 1 and token > "\u4e00"]
    return [[rng.choice([*known, "㐀"]) for _ in range(length)] for length in lengths]


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(0, 120), min_size=0, max_size=12), seed=st.integers(0, 99))
def test_labels_are_those_of_the_cpu_engine(
    pack: PackContents,
    reference: CtTransformerEngine,
    engine: GpuCtTransformer,
    lengths: list[int],
    seed: int,
) -> None:
    texts = _texts(pack, lengths, seed)
    assert engine.label(texts) == reference.label(texts)


@pytest.mark.parametrize("lengths", [[700], [3] * 80, [400, 400, 400]])
def test_batch_beyond_every_bucket_is_labeled(
    pack: PackContents,
    reference: CtTransformerEngine,
    engine: GpuCtTransformer,
    lengths: list[int],
) -> None:
    texts = _texts(pack, lengths, 1)
    assert engine.label(texts) == reference.label(texts)


def test_half_precision_changes_few_labels(
    pack: PackContents, reference: CtTransformerEngine
) -> None:
    texts = _texts(pack, [40] * 20, 2)
    engine = GpuCtTransformer(pack, GpuOptions(device="cpu", dtype="bfloat16", max_batch_rows=1000))
    pairs = zip(engine.label(texts), reference.label(texts), strict=True)
    changed = sum(
        one != other
        for found, expected in pairs
        for one, other in zip(found, expected, strict=True)
    )
    assert changed <= 8  # of 800, on random characters, where scores lie close together


def test_engine_is_a_punctuator(engine: GpuCtTransformer) -> None:
    port: Punctuator = engine
    assert port.label([[], ["我"]])[0] == []


def test_other_packs_are_refused() -> None:
    with pytest.raises(PackCorrupt, match=r"CTTransformer|model_conf"):
        GpuCtTransformer(resolve("paraformer-demo", PackStore(), fetch=False), ON_CPU)


def test_int8_is_refused(pack: PackContents) -> None:
    with pytest.raises(ConfigurationError, match="int8"):
        GpuCtTransformer(pack, GpuOptions(device="cpu", dtype="int8"))
