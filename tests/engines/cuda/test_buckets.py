from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engines.cuda.buckets import LONGEST_ROWS, BucketPlan, ladder, rounded_up


@given(largest=st.integers(1, 50_000))
def test_bucket_sizes_grow_in_small_steps_up_to_the_budget(largest: int) -> None:
    steps = ladder(largest)
    assert steps == sorted(set(steps))
    assert steps[-1] == largest
    assert all(after <= 1.4 * before + 64 for before, after in pairwise(steps))
    assert len(steps) < 30


@given(lengths=st.lists(st.integers(1, LONGEST_ROWS), min_size=1, max_size=60))
def test_bucket_holds_its_batch_and_wastes_little(lengths: list[int]) -> None:
    plan = BucketPlan(20_000, tokens_per_row=0.5)
    bucket = plan.fit(lengths)
    assert bucket is not None
    assert bucket in plan.buckets()
    assert sum(lengths) <= bucket.rows
    assert len(lengths) <= bucket.sequences
    assert max(lengths) <= bucket.longest
    if bucket.sequences > 16 and sum(lengths) > 48 * len(lengths):
        assert bucket.rows <= 1.4 * sum(lengths) + 64


@pytest.mark.parametrize("lengths", [[LONGEST_ROWS + 1], [500, 501], [1] * 21])
def test_batch_beyond_every_bucket_has_none(lengths: list[int]) -> None:
    assert BucketPlan(1000, tokens_per_row=0.5).fit(lengths) is None


def test_exact_bucket_accepts_a_known_number_of_tokens() -> None:
    bucket = BucketPlan(1000, tokens_per_row=0.5).exact_bucket([700, 800], num_tokens=1300)
    assert (bucket.rows, bucket.tokens, bucket.sequences, bucket.longest) == (1536, 1344, 2, 832)


def test_network_without_a_decoder_has_no_token_rows() -> None:
    assert {bucket.tokens for bucket in BucketPlan(1000).buckets()} == {0}


def test_rounding_goes_up_to_whole_blocks() -> None:
    assert [rounded_up(count) for count in (0, 1, 64, 65)] == [64, 64, 64, 128]
