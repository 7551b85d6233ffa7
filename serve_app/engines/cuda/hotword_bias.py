"""Hotword bias on a device, applied after the graph to the utterances that have hotwords."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TypeAlias

import torch

from serve_app.core.records import Hotword
from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.cuda.graphs import StaticBuffers
from serve_app.engines.cuda.readback import ReadbackLayout
from serve_app.engines.paraformer.hotwords import EncodedHotwords, HotwordBranch
from serve_app.packs.pack import PackContents

Score: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Decoder states [tokens, size] to logits, float32 [tokens, vocabulary]."""

HotwordsByIndex: TypeAlias = Mapping[int, tuple[Hotword, ...]]
"""Hotwords by the index of their utterance in the batch."""

_GROUP_TOKENS = 1024  # bounds the memory that scores over the vocabulary take


class HotwordBias:
    """Biases the tokens of a batch toward the hotwords of its utterances.

    The graph does not depend on hotwords. It saves the tokens' embeddings and decoder states in
    static buffers, a few MB each. Vocabulary scores are then computed again only for utterances
    with hotwords, and only tokens that the hotword branch names are written. For this the host
    reads the token counts, and waits, once per batch with hotwords.

    The branch always computes in float32: it is small and runs on few rows, and in bfloat16 the
    scores that it compares would be equal. Half-precision states are converted without loss.

    Args:
        pack: of class SeacoParaformer.
        device: where it computes.
        largest: the largest bucket.
        size: width of embeddings and states.
        dtype: of the decoder's states.
        score: the recognizer's own output layer.

    Raises:
        PackError: the branch cannot be run, or is missing.
    """

    def __init__(
        self,
        pack: PackContents,
        device: torch.device,
        largest: Bucket,
        size: int,
        dtype: torch.dtype,
        score: Score,
    ) -> None:
        self.branch = HotwordBranch(pack, device)
        self._score = score
        self._embeddings = StaticBuffers(largest.tokens, size, torch.float32, device)
        self._states = StaticBuffers(largest.tokens, size, dtype, device)

    def save_rows(self, embeddings: torch.Tensor, states: torch.Tensor) -> None:
        """Saves a batch's rows, [bucket.tokens, size] each; part of the graph."""
        self._embeddings.first(len(embeddings)).copy_(embeddings)
        self._states.first(len(states)).copy_(states)

    def apply_bias(
        self, layout: ReadbackLayout, hotwords_by_index: HotwordsByIndex, results: torch.Tensor
    ) -> None:
        """Overwrites ids and confidences of biased tokens.

        Does nothing if the batch has more tokens than the bucket, because it will be run again.

        Args:
            layout: of the results.
            hotwords_by_index: words that the vocabulary cannot encode are ignored.
            results: uint8, as the graph has written them.
        """
        lists = {index: self.branch.encode(words) for index, words in hotwords_by_index.items()}
        counts = layout.counts(results).tolist()
        if sum(counts) > layout.bucket.tokens:
            return
        ends = list(accumulate(counts))
        spans = [
            (ends[index] - counts[index], ends[index], words)
            for index, words in lists.items()
            if words is not None and counts[index] > 0
        ]
        for group in _group_spans(spans):
            self._bias_group(layout, group, results)

    def _bias_group(
        self,
        layout: ReadbackLayout,
        group: list[tuple[int, int, EncodedHotwords]],
        results: torch.Tensor,
    ) -> None:
        num_tokens = layout.bucket.tokens
        rows = torch.cat([torch.arange(start, end) for start, end, _ in group]).to(results.device)
        states = self._states.first(num_tokens)[rows].float()
        hotword_scores = self.branch.score_hotwords(
            self._embeddings.first(num_tokens)[rows],
            states,
            [end - start for start, end, _ in group],
            [words for _, _, words in group],
        )
        scores = torch.log_softmax(self._score(states), dim=-1)
        best = hotword_scores.apply_bias(scores).max(dim=-1)
        ids, confidences = layout.ids(results), layout.confidences(results)
        # A product over another number of rows may round differently: unbiased tokens stay.
        biased = hotword_scores.biased
        ids[rows] = torch.where(biased, best.indices.to(torch.int32), ids[rows])
        confidences[rows] = torch.where(biased, best.values.exp(), confidences[rows])


def _group_spans(
    spans: list[tuple[int, int, EncodedHotwords]],
) -> Iterator[list[tuple[int, int, EncodedHotwords]]]:
    """Yields consecutive spans in groups of at most 1024 tokens, at least one span each."""
    group: list[tuple[int, int, EncodedHotwords]] = []
    num_tokens = 0
    for start, end, words in spans:
        if group and num_tokens + end - start > _GROUP_TOKENS:
            yield group
            group, num_tokens = [], 0
        group.append((start, end, words))
        num_tokens += end - start
    if group:
        yield group
