from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.engines.cuda.cif_fire import Predictor
from serve_app.engines.cuda.sequence_layout import lay_out
from serve_app.engines.cuda.weights import Weights
from serve_app.engines.paraformer.cif import CifPredictor, CifShape, embed_tokens, integrate
from serve_app.engines.paraformer.packing import PackedSequences
from tests.fakes.tiny_packs import fill_at_random

CPU = torch.device("cpu")
SIZE = 16


def _predictors(tail: float, seed: int) -> tuple[CifPredictor, Predictor]:
    shape = CifShape(size=SIZE, left=1, right=1, tail_threshold=tail)
    theirs = CifPredictor(shape)
    fill_at_random(theirs, seed)
    state = {f"predictor.{name}": tensor for name, tensor in theirs.state_dict().items()}
    return theirs, Predictor(Weights(state, CPU, torch.float32), shape)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    tail=st.sampled_from([0.0, 0.45]),
    seed=st.integers(0, 50),
)
def test_tokens_and_embeddings_are_those_of_the_cpu_engine(
    lengths: list[int], tail: float, seed: int
) -> None:
    theirs, ours = _predictors(tail, seed)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(sum(lengths) + 20, SIZE, generator=generator)
    frames[sum(lengths) :] = torch.nan
    layout = PackedSequences(lengths, CPU)
    with torch.inference_mode():
        alphas = torch.split(theirs(frames[: sum(lengths)], layout), lengths)
        expected = [integrate(part, theirs.shape, sequential=False) for part in alphas]
        rows = embed_tokens(frames[: sum(lengths)], layout, expected)
        sequence_layout = lay_out(torch.tensor([*lengths, 0]), len(frames), 64)
        found = ours.fire(frames, sequence_layout, 256)
    counts = [item.num_tokens for item in expected]
    assert found.counts.tolist() == [*counts, 0]
    assert not found.broken.any()
    torch.testing.assert_close(found.embeddings[: sum(counts)], rows, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.alphas[: sum(lengths)], torch.cat(alphas))
    assert not found.alphas[sum(lengths) :].any()


def test_non_finite_sequence_has_no_tokens_and_does_not_affect_others() -> None:
    _, ours = _predictors(0.45, 3)
    frames = torch.randn(60, SIZE, generator=torch.Generator().manual_seed(3))
    sequence_layout = lay_out(torch.tensor([20, 20, 20]), 60, 64)
    with torch.inference_mode():
        whole = ours.fire(frames, sequence_layout, 64)
        frames[25] = torch.inf
        found = ours.fire(frames, sequence_layout, 64)
    assert found.broken.tolist() == [False, True, False]
    expected = whole.counts * torch.tensor([1, 0, 1])
    assert found.counts.tolist() == expected.tolist()
    first = int(whole.counts[0])
    assert first > 0
    torch.testing.assert_close(found.embeddings[:first], whole.embeddings[:first])
    last = slice(first, first + int(whole.counts[2]))
    after = slice(first + int(whole.counts[1]), int(whole.counts.sum()))
    torch.testing.assert_close(found.embeddings[last], whole.embeddings[after])


def test_tokens_beyond_the_bucket_are_counted() -> None:
    _, ours = _predictors(0.45, 3)
    frames = torch.randn(60, SIZE, generator=torch.Generator().manual_seed(3))
    sequence_layout = lay_out(torch.tensor([30, 30]), 60, 64)
    with torch.inference_mode():
        whole = ours.fire(frames, sequence_layout, 64)
        found = ours.fire(frames, sequence_layout, 3)
    assert int(whole.counts.sum()) > 3
    assert found.counts.tolist() == whole.counts.tolist()
    assert found.embeddings.shape == (3, SIZE)
    assert int(found.sequence_layout.offsets[-1]) == 3
    torch.testing.assert_close(found.embeddings, whole.embeddings[:3])


@pytest.mark.parametrize("num_frames", [1, 7, 500])
def test_no_sequence_has_more_tokens_than_its_bound(num_frames: int) -> None:
    _, ours = _predictors(0.45, 1)
    assert ours.max_tokens(num_frames) >= num_frames + 1
