"""Hotwords of a SeACo pack: which words, how strongly, on one utterance's scores."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

from serve_app.core.hints import Hotword
from serve_app.engines.hotword_net import HotwordNet, parse_hotword_shape
from serve_app.engines.spelling import Speller
from serve_app.packs.contents import PackContents, load_into

_BEGIN_ID = 1  # stands for "none of them" at the end of each list
_MAX_ATTENDED = 50
_MAX_LISTS = 32
_OTHER_PARTS = ("encoder.", "predictor.", "decoder.", "ctc.", "bias_embed.")


@dataclass(frozen=True, slots=True)
class _WordList:
    """A request's words as the network sees them.

    Attributes:
        vectors: float32 [words + 1, size]; the last stands for none.
        weight_of: by id: how strongly the words that contain it are meant, float32 [vocabulary].
    """

    vectors: torch.Tensor
    weight_of: torch.Tensor


class HotwordBranch:
    """Bends the scores of one utterance towards the words of its request.

    Word lists are embedded once and kept, up to 32 of them. Safe to share by threads.

    Args:
        pack: of class SeacoParaformer.
        device: where to compute.

    Raises:
        PackError: the branch cannot be run, or is missing.
    """

    def __init__(self, pack: PackContents, device: torch.device) -> None:
        self._speller = Speller(pack)
        with torch.device("meta"):
            self._net = HotwordNet(parse_hotword_shape(pack))
        load_into(self._net, pack, ignore_prefixes=_OTHER_PARTS)
        self._net.to(device)
        self._device = device
        self._lists: OrderedDict[tuple[Hotword, ...], _WordList | None] = OrderedDict()
        self._lock = threading.Lock()

    def bend(
        self,
        scores: torch.Tensor,
        embeddings: torch.Tensor,
        states: torch.Tensor,
        hotwords: tuple[Hotword, ...],
    ) -> torch.Tensor:
        """Returns an utterance's scores, bent.

        Where the branch names a token, its scores take the place of the recogniser's,
        in the share that the word's weight says; elsewhere nothing changes. A weight
        of 1 and more is the model's own strength. Words that the vocabulary cannot
        write are left out.

        Args:
            scores: log-probabilities, float32 [tokens, vocabulary].
            embeddings: acoustic embeddings, [tokens, size].
            states: the decoder's output, [tokens, size].
            hotwords: of the request.
        """
        words = self._list_of(hotwords)
        if words is None or len(scores) == 0:
            return scores
        vectors = self._attended(states, words.vectors)
        hinted = self._net(embeddings, states, vectors)
        named = hinted.argmax(dim=-1)
        share = words.weight_of[named].masked_fill(named == self._net.shape.no_bias_id, 0.0)
        # Rows that nothing is said about stay what they are, to the bit.
        return torch.where(
            (share > 0)[:, None],
            scores * (1 - share)[:, None] + hinted * share[:, None],
            scores,
        )

    def _attended(self, states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Of a long list, the words that the utterance attends to most, and none."""
        if len(vectors) <= _MAX_ATTENDED:
            return vectors
        attention = self._net.score_words(states, vectors)
        chosen = attention.topk(min(_MAX_ATTENDED, len(vectors) - 1)).indices
        none = torch.tensor([len(vectors) - 1], device=chosen.device)
        return vectors[torch.cat([chosen, none])]

    def _list_of(self, hotwords: tuple[Hotword, ...]) -> _WordList | None:
        with self._lock:
            if hotwords in self._lists:
                self._lists.move_to_end(hotwords)
                return self._lists[hotwords]
        words = self._read(hotwords)
        with self._lock:
            self._lists[hotwords] = words
            while len(self._lists) > _MAX_LISTS:
                self._lists.popitem(last=False)
        return words

    def _read(self, hotwords: tuple[Hotword, ...]) -> _WordList | None:
        spelled = [(self._speller.ids(hotword.text), hotword.weight) for hotword in hotwords]
        written = [(ids, min(weight, 1.0)) for ids, weight in spelled if ids is not None]
        if not written:
            return None
        vectors = self._net.embed([*(ids for ids, _ in written), (_BEGIN_ID,)])
        # A token that is in no word is as strong as the strongest.
        weight_of = torch.full(
            (self._net.shape.vocabulary_size,), max(weight for _, weight in written)
        )
        strongest: dict[int, float] = {}
        for ids, weight in written:
            for number in ids:
                strongest[number] = max(weight, strongest.get(number, 0.0))
        for number, weight in strongest.items():
            weight_of[number] = weight
        return _WordList(vectors, weight_of.to(self._device))
