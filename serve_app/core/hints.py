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
        keywords: texts that make a draft worth refining wherever it contains one; the field
            `refine_keywords`.
        language: code of what is spoken, as `zh`, or `auto` to have it guessed; None for what
            the deployment takes it for.
            Whisper heeds it, Paraformer has no use for it.
    """

    model: str | None = None
    hotwords: tuple[Hotword, ...] = ()
    keywords: tuple[str, ...] = ()
    language: str | None = None


NO_HINTS = Hints()


@dataclass(frozen=True, slots=True)
class HotwordCheck:
    """What a model makes of a request's hotwords.

    Attributes:
        no_use: why it has no use for any; None if it has.
        unwritable: those that its vocabulary cannot write, so that they can never be heard.
    """

    no_use: str | None = None
    unwritable: tuple[str, ...] = ()


ALL_HEEDED = HotwordCheck()
