"""Hotwords of a SeACo pack: which words, how strongly, on an utterance's scores."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from serve_app.core.records import Hotword
from serve_app.engines.paraformer.hotword_network import HotwordNet, parse_hotword_shape
from serve_app.engines.paraformer.hotword_tokenizer import HotwordTokenizer
from serve_app.packs.pack import PackContents, load_into

_BEGIN_ID = 1  # stands for "none of them" at the end of each list
_MAX_ATTENDED = 50
_MAX_LISTS = 32
_OTHER_PARTS = ("encoder.", "predictor.", "decoder.", "ctc.", "bias_embed.")


@dataclass(frozen=True, slots=True)
class EncodedHotwords:
    """A request's words as the network sees them; from `HotwordBranch.read`.

    Attributes:
        vectors: float32 [words + 1, size]; the last stands for none.
        weight_of: by id: how strongly the words that contain it are meant, float32 [vocabulary].
    """

    vectors: torch.Tensor
    weight_of: torch.Tensor


@dataclass(frozen=True, slots=True)
class HotwordScores:
    """What hotwords say about the tokens of one or several utterances.

    Attributes:
        scores: log-probabilities, float32 [tokens, vocabulary].
        shares: how much they count in each token, float32 [tokens]; 0 for not at all.
    """

    scores: torch.Tensor
    shares: torch.Tensor

    @property
    def touched(self) -> torch.Tensor:
        """Bool [tokens]: about which tokens they say anything."""
        return self.shares > 0

    def apply_bias(self, scores: torch.Tensor) -> torch.Tensor:
        """Mixes them into the recognizer's log-probabilities, float32 [tokens, vocabulary]."""
        share = self.shares[:, None]
        # Rows that nothing is said about stay what they are, to the bit.
        return torch.where(
            self.touched[:, None], scores * (1 - share) + self.scores * share, scores
        )


class HotwordBranch:
    """Says what the words of requests make of the tokens of their utterances.

    Word lists are embedded once and kept, up to 32 of them. Safe to share by threads.

    Args:
        pack: of class SeacoParaformer.
        device: where to compute.

    Raises:
        PackError: the branch cannot be run, or is missing.
    """

    def __init__(self, pack: PackContents, device: torch.device) -> None:
        self._pack = pack
        self._tokenizer = HotwordTokenizer(pack)
        with torch.device("meta"):
            self._net = HotwordNet(parse_hotword_shape(pack))
        load_into(self._net, pack, ignore_prefixes=_OTHER_PARTS)
        self._net.to(device)
        self._device = device
        self._lists: OrderedDict[tuple[Hotword, ...], EncodedHotwords | None] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, hotwords: tuple[Hotword, ...]) -> EncodedHotwords | None:
        """Returns a request's words as the network sees them.

        Words that the vocabulary cannot write are left out; None if that leaves none.
        """
        with self._lock:
            if hotwords in self._lists:
                self._lists.move_to_end(hotwords)
                return self._lists[hotwords]
        words = self._encode(hotwords)
        with self._lock:
            self._lists[hotwords] = words
            while len(self._lists) > _MAX_LISTS:
                self._lists.popitem(last=False)
        return words

    def score_hotwords(
        self,
        embeddings: torch.Tensor,
        states: torch.Tensor,
        lengths: Sequence[int],
        lists: Sequence[EncodedHotwords],
    ) -> HotwordScores:
        """What the words say about utterances that are laid end to end.

        Where the branch names a token, its scores take the place of the recognizer's,
        in the share that the word's weight says; elsewhere nothing changes. A weight
        of 1 and more is the model's own strength.

        Args:
            embeddings: acoustic embeddings, float32 [tokens, size].
            states: the decoder's output, float32 [tokens, size].
            lengths: tokens of each utterance, at least 1.
            lists: of each utterance.
        """
        vectors = self._most_attended(states, lengths, [words.vectors for words in lists])
        scores = self._net(embeddings, states, lengths, vectors)
        named = scores.argmax(dim=-1)
        parts = torch.split(named, list(lengths))
        shares = torch.cat(
            [words.weight_of[part] for words, part in zip(lists, parts, strict=True)]
        )
        return HotwordScores(scores, shares.masked_fill_(named == self._net.shape.no_bias_id, 0.0))

    def example(self) -> tuple[Hotword, ...]:
        """A list of one word that can be written, to warm up with; of none without any."""
        tokens = self._pack.tokens
        written = (token for token in tokens if self._tokenizer.ids(token) is not None)
        return tuple(Hotword(token) for token in islice(written, 1))

    def _most_attended(
        self, states: torch.Tensor, lengths: Sequence[int], lists: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Of a long list, the words that its utterance attends to most, and none."""
        long = [number for number, vectors in enumerate(lists) if len(vectors) > _MAX_ATTENDED]
        if not long:
            return lists
        parts = torch.split(states, list(lengths))
        attention = self._net.score_words(
            torch.cat([parts[number] for number in long]),
            [lengths[number] for number in long],
            [lists[number] for number in long],
        )
        kept = list(lists)
        for number, scores in zip(long, attention, strict=True):
            vectors = lists[number]
            chosen = scores.topk(min(_MAX_ATTENDED, len(vectors) - 1)).indices
            kept[number] = torch.cat([vectors[chosen], vectors[-1:]])
        return kept

    def _encode(self, hotwords: tuple[Hotword, ...]) -> EncodedHotwords | None:
        spelled = [(self._tokenizer.ids(hotword.text), hotword.weight) for hotword in hotwords]
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
        return EncodedHotwords(vectors, weight_of.to(self._device))
