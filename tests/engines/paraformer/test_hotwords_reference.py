"""Hotwords against FunASR's own class, one utterance a call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serve_app.core.records import Hotword, RecognitionOptions
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs.pack import open_pack
from tests.fakes.funasr_reference import REFERENCE_MARKS, Reference
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, write_paraformer

pytestmark = REFERENCE_MARKS

TINY = (
    TinyParaformer("SeacoParaformer", vocabulary_size=60, seed=2),
    TinyParaformer(
        "SeacoParaformer",
        vocabulary_size=80,
        num_hotword_blocks=6,
        bidirectional_bias=True,
        num_heads=2,
        kernel_size=21,
        seed=4,
    ),
)


def _words(tiny: TinyParaformer, count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    letters = [chr(ord("一") + index) for index in range(tiny.vocabulary_size - 4)]
    lengths = generator.integers(1, 5, count)
    return list(dict.fromkeys("".join(generator.choice(letters, length)) for length in lengths))


@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: str(tiny.seed))
def test_hotwords_change_the_text_as_in_funasr(tmp_path: Path, tiny: TinyParaformer) -> None:
    directory = write_paraformer(tmp_path / "tiny", tiny)
    pack = open_pack(directory)
    engine = ParaformerEngine(pack)
    reference = Reference(directory)
    batch = [speech_like(length, length) for length in (40_000, 9_000, 80_000, 1_500, 23_456)]
    lists = [[], _words(tiny, 1, 1), _words(tiny, 7, 2), _words(tiny, 49, 3)]
    if tiny.num_hotword_blocks > 5:
        # FunASR's filter of long lists knows decoders of six layers only.
        lists.append(_words(tiny, 90, 4))
        assert len(lists[-1]) > 50
    bent = 0
    for words in lists:
        recognition_options = RecognitionOptions(hotwords=tuple(Hotword(word) for word in words))
        ids = engine.token_ids(batch, [recognition_options] * len(batch))
        texts = ["".join(_shown(pack.tokens[number]) for number in item) for item in ids]
        assert texts == [reference.hear_with(pcm, words) for pcm in batch]
        bent += ids != engine.token_ids(batch)
    assert bent >= 2


def test_weight_is_the_share_that_funasr_has_for_all_words(tmp_path: Path) -> None:
    directory = write_paraformer(tmp_path / "tiny", TINY[0])
    pack = open_pack(directory)
    engine = ParaformerEngine(pack)
    reference = Reference(directory)
    words = _words(TINY[0], 9, 5)
    heard = set()
    for weight in (0.2, 0.5, 0.8):
        for pcm in (speech_like(40_000, 3), speech_like(64_000, 4)):
            recognition_options = RecognitionOptions(
                hotwords=tuple(Hotword(word, weight) for word in words)
            )
            ids = engine.token_ids([pcm], [recognition_options])[0]
            text = "".join(_shown(pack.tokens[number]) for number in ids)
            assert text == reference.hear_with(pcm, words, weight)
            heard.add(text)
    assert len(heard) > 2


def _shown(token: str) -> str:
    return "" if token == "<unk>" else token
