"""What the Paraformer engines have in common: the transcripts of what their networks decode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from serve_app.core.records import NO_OPTIONS, ChunkFailure, Pcm, Recognition, RecognitionOptions
from serve_app.engines.paraformer.detokenize import Decoded, recognition_of, shown_ids
from serve_app.packs.pack import PackContents


class DecodingEngine(ABC):
    """Implements `ports.Recognizer` over a network; subclasses set `_pack` and run the network."""

    _pack: PackContents

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        """Recognizes each item; see `ports.Recognizer`.

        Items shorter than a frame (25 ms) and digital silence have no tokens. An item whose
        scores are not finite fails without affecting others.
        """
        return [
            recognition_of(pcm, decoded, self._pack.tokens)
            for pcm, decoded in zip(batch, self._decode(batch, recognition_options), strict=True)
        ]

    def token_ids(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[list[int]]:
        """Returns the vocabulary ids of each item, without blank, sos and eos."""
        return [shown_ids(decoded) for decoded in self._decode(batch, recognition_options)]

    @abstractmethod
    def cost(self, num_samples: int) -> int:
        """Returns the encoder frames of an item; a batch costs the sum of its items."""

    @abstractmethod
    def _decode_audible(
        self, batch: list[Pcm], recognition_options: list[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure]:
        """Runs the network on at least one item; none of them is empty or silent."""

    def _decode(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure | None]:
        """Returns what the network decodes; None for empty and silent items."""
        results: list[Decoded | ChunkFailure | None] = [None] * len(batch)
        audible = [
            index for index, pcm in enumerate(batch) if self.cost(len(pcm)) > 0 and pcm.any()
        ]
        if audible:
            options = [
                recognition_options[index] if recognition_options else NO_OPTIONS
                for index in audible
            ]
            decoded = self._decode_audible([batch[index] for index in audible], options)
            for index, result in zip(audible, decoded, strict=True):
                results[index] = result
        return results
