"""Writes the model cards of the packs."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.demo_packs.evaluate import tabulate
from recipes.demo_packs.synthesizer import VOICES
from recipes.demo_packs.vocabulary import speech_tokens

_COMMON = """
It is for trying the service, for tests and for demonstrations. **It is not for real
recordings**: it has never heard a person speak, and it knows only the {num_characters} characters
of the recipe's sentence templates.

## What it was trained on

- Text: sentences drawn from templates written for this recipe (meetings, customer service,
  numbers, dates, travel, weather, dictation ...). One distinct sentence in 32, chosen by its
  hash, is held out.
{speech}
## How it was made

```
{command}
```

{run}

## Measured

By `python -m recipes.demo_packs.evaluate`, on held-out sentences of the same templates:

{figures}

## License

The text, the recipe and the weights are part of this project and come under its license.
The training code builds on FunASR's model classes (MIT license). No recording of a person and
no third party's text was used.
{voices}"""
_RECOGNIZER = """# paraformer-demo

A Paraformer of the published architecture (SANM encoder of 6 blocks, CIF predictor, SANM
decoder of 2 blocks, 160 wide, 3.4 million parameters, weights kept as float16) in FunASR's
on-disk format.
"""
_SPEECH = """- Speech: espeak-ng 1.51, voice `cmn-latn-pinyin` with the variants
  {variants}, at several rates, pitches and speeds;
  gain, noise (white, pink, brown, hum, babble, music), silence, several sentences in a row,
  some with a telephone's band. About 4 % of the examples are silence, noise or music without
  words.
"""
_VOICES = (
    "espeak-ng is free software (GPL 3); its license does not extend to the speech it produces.\n"
)
_PUNCTUATOR = """# ct-punc-demo

A CT-Transformer (3 SANM layers, 128 wide, 0.76 million parameters, weights kept as float16)
that puts ，。？、 into Chinese text, in FunASR's on-disk format.
"""


@dataclass(frozen=True, slots=True)
class Making:
    """How packs were made.

    Attributes:
        command: one line a run; the first run trains the punctuator, too.
        recognizer_run: what the recognizer's runs amounted to.
        punctuator_run: the same of the punctuator's.
    """

    command: str
    recognizer_run: str
    punctuator_run: str


def recognizer_card(making: Making, figures: dict[str, float]) -> str:
    """The recognizer's card with its own figures."""
    return _RECOGNIZER + _COMMON.format(
        num_characters=len(speech_tokens()) - 4,
        speech=_SPEECH.format(variants=", ".join(f"+{voice}" for voice in VOICES)),
        command=making.command,
        run=making.recognizer_run,
        figures=tabulate(figures),
        voices=_VOICES,
    )


def punctuator_card(making: Making, figures: dict[str, float]) -> str:
    """The punctuator's card with its own figures."""
    return _PUNCTUATOR + _COMMON.format(
        num_characters=len(speech_tokens()) - 4,
        speech="",
        command=making.command.splitlines()[0],
        run=making.punctuator_run,
        figures=tabulate(figures),
        voices="",
    )
