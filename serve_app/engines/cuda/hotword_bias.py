"""Hotwords on a device: what is done after the graph for the utterances that have some."""

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
"""Hotwords by the place of their utterance in the batch."""

_GROUP_TOKENS = 1024  # bounds the memory that scores over the vocabulary take


class HotwordBias:
    """Bends what a batch heard toward the hotwords of some of its utterances.

    The graph knows nothing of hotwords: it leaves the tokens' embeddings and decoder
    states behind, two copies of a few MB. Only for utterances with hotwords are scores
    over the vocabulary computed again, and only tokens that the branch speaks about are
    written; those of other utterances are never read. The host learns how many tokens
    each utterance has, for which it waits, once a batch that has hotwords.

    The branch computes in float32 whatever the recognizer does: it is small beside it
    and runs for few rows, and in bfloat16 the scores that it is asked to compare would
    be equal. States in half precision are widened, which loses nothing.

    Args:
        pack: of class SeacoParaformer.
        device: where to compute.
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
        """Part of the graph: leaves a batch's rows behind, [bucket.tokens, size] each."""
        self._embeddings.first(len(embeddings)).copy_(embeddings)
        self._states.first(len(states)).copy_(states)

    def apply_bias(
        self, layout: ReadbackLayout, hotwords_by_index: HotwordsByIndex, results: torch.Tensor
    ) -> None:
        """Writes ids and confidences of utterances with hotwords anew.

        Nothing is done if the batch has more tokens than the bucket: it will be run again.

        Args:
            layout: of the results.
            hotwords_by_index: hotwords; words that the vocabulary cannot write are left out.
            results: uint8, as the graph has filled them.
        """
        lists = {index: self.branch.read(words) for index, words in hotwords_by_index.items()}
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
        # Another number of rows may round otherwise: what nothing is said about stays.
        touched = hotword_scores.touched
        ids[rows] = torch.where(touched, best.indices.to(torch.int32), ids[rows])
        confidences[rows] = torch.where(touched, best.values.exp(), confidences[rows])


def _group_spans(
    spans: list[tuple[int, int, EncodedHotwords]],
) -> Iterator[list[tuple[int, int, EncodedHotwords]]]:
    """Spans in order, as many at a time as have up to 1024 tokens together, at least one."""
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
