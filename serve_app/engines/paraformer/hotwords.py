"""Hotword bias of SeACo packs: encoded hotwords, and their effect on an utterance's scores."""

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
from serve_app.engines.paraformer.onednn import use_bfloat16
from serve_app.packs.pack import PackContents, load_into

_BEGIN_ID = 1  # stands for "none of them" at the end of each list
_MAX_ATTENDED = 50
_MAX_LISTS = 32
_OTHER_PARTS = ("encoder.", "predictor.", "decoder.", "ctc.", "bias_embed.")


@dataclass(frozen=True, slots=True)
class EncodedHotwords:
    """The encoded hotwords of a request, from `HotwordBranch.encode`.

    Attributes:
        vectors: float32 [words + 1, size]; the last one stands for no hotword.
        weight_of: largest weight of the words that contain an id, float32 [vocabulary].
    """

    vectors: torch.Tensor
    weight_of: torch.Tensor


@dataclass(frozen=True, slots=True)
class HotwordScores:
    """Scores of the hotword branch for the tokens of one or several utterances.

    Attributes:
        scores: log-probabilities, float32 [tokens, vocabulary].
        shares: their weight in each token, float32 [tokens]; 0 for no effect.
    """

    scores: torch.Tensor
    shares: torch.Tensor

    @property
    def biased(self) -> torch.Tensor:
        """Bool [tokens]: tokens on which the hotwords have an effect."""
        return self.shares > 0

    def apply_bias(self, scores: torch.Tensor) -> torch.Tensor:
        """Mixes the scores into log-probabilities of the recognizer, [tokens, vocabulary]."""
        share = self.shares[:, None]
        # Rows without an effect stay bit-identical.
        return torch.where(self.biased[:, None], scores * (1 - share) + self.scores * share, scores)


class HotwordBranch:
    """The hotword branch of a SeACo model; safe for use by several threads.

    The encoded hotwords of up to 32 requests are cached.

    Args:
        pack: of class SeacoParaformer.
        device: where it computes.

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

    def use_bfloat16(self) -> None:
        """Computes the attention to hotwords in bfloat16, on the CPU, from now on.

        Raises:
            ConfigurationError: this CPU would emulate bfloat16.
        """
        use_bfloat16(self._net.seaco_decoder)

    def encode(self, hotwords: tuple[Hotword, ...]) -> EncodedHotwords | None:
        """Encodes a request's hotwords.

        Words that the vocabulary cannot encode are left out; None if no word remains.
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
        """Scores the tokens of packed utterances.

        Where the branch names a token, its scores are mixed with the recognizer's in proportion
        to the word's weight; elsewhere nothing changes. A weight of 1 or more gives the model's
        full bias.

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
        """Returns one word that can be encoded, for warm-up; empty if there is none."""
        tokens = self._pack.tokens
        written = (token for token in tokens if self._tokenizer.ids(token) is not None)
        return tuple(Hotword(token) for token in islice(written, 1))

    def _most_attended(
        self, states: torch.Tensor, lengths: Sequence[int], lists: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Reduces long lists to the words with the most attention, plus the one for no hotword."""
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
        # A token outside all words gets the largest weight.
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
