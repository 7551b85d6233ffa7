"""FunASR's own recognizer, one utterance a call, for tests that hold the engines to it.

Not a fake: it is what the tests of random packs compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.core.records import Pcm

REFERENCE_MARKS = [
    pytest.mark.reference,
    # FunASR 1.4.16 and what it imports, not ours to fix.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
"""For modules that use it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What FunASR answers for one utterance, without spaces."""

    text: str
    times_ms: list[tuple[int, int]]


def _order_arguments() -> None:
    """Lets vanilla Paraformer hand weights and fires over in the order of the parameters.

    FunASR 1.4.16 swaps them: https://github.com/modelscope/FunASR/pull/3716.
    """
    from funasr.models.paraformer import model
    from funasr.utils.timestamp_tools import ts_prediction_lfr6_standard

    def predict(fires: torch.Tensor, alphas: torch.Tensor, *args: Any, **options: Any) -> Any:
        return ts_prediction_lfr6_standard(alphas, fires, *args, **options)

    model.ts_prediction_lfr6_standard = predict


class Reference:
    """FunASR's AutoModel over a pack."""

    def __init__(self, directory: Path) -> None:
        from funasr import AutoModel

        self.auto = AutoModel(
            model=str(directory),
            device="cpu",
            ncpu=1,
            disable_update=True,
            disable_pbar=True,
            log_level="ERROR",
            # Vanilla Paraformer has times only if asked.
            pred_timestamp=True,
        )
        _order_arguments()

    def hear(self, pcm: Pcm) -> Heard:
        return self._hear(pcm)

    def hear_with(self, pcm: Pcm, words: list[str], weight: float = 1.0) -> str:
        """Returns the text with hotwords, all of one weight; for SeACo packs."""
        model = self.auto.model
        decode = type(model)._seaco_decode_with_ASF.__get__(model)
        model._seaco_decode_with_ASF = partial(decode, seaco_weight=weight)
        return self._hear(pcm, **({"hotword": " ".join(words)} if words else {})).text

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """[frames, dim] -> [frames, size]."""
        encoded: torch.Tensor = self.auto.model.encode(
            features[None], torch.tensor([len(features)])
        )[0][0]
        return encoded

    def _hear(self, pcm: Pcm, **options: str) -> Heard:
        answers = self.auto.generate(pcm.astype(np.float32) / 32_768, **options)
        answer = answers[0] if answers else {"text": ""}
        times = [(int(span[0]), int(span[1])) for span in answer.get("timestamp", [])]
        return Heard(str(answer["text"]).replace(" ", ""), times)
