"""What a request tells the recogniser beside the audio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hotword:
    """A word that the recogniser should prefer.

    Attributes:
        text: the word.
        weight: how strongly, 1.0 for as the model was trained.
    """

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Hints:
    """What a request tells the recogniser beside the audio.

    Attributes:
        model: name of the pack that is to hear it; None for the deployment's first.
        hotwords: words that a model with a bias encoder prefers.
        keywords: texts that make a draft worth refining wherever it contains one.
        language: code of what is spoken, as `zh`; None for what the deployment takes it for.
            Whisper heeds it, Paraformer has no use for it.
    """

    model: str | None = None
    hotwords: tuple[Hotword, ...] = ()
    keywords: tuple[str, ...] = ()
    language: str | None = None


NO_HINTS = Hints()
