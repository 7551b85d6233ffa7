from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.engines.paraformer.hotword_tokenizer import HotwordTokenizer
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> HotwordTokenizer:
    pack = tiny_paraformer(
        tmp_path_factory.mktemp("pack") / "pack", TinyParaformer("SeacoParaformer")
    )
    (pack.directory / "seg_dict").write_text("ray 一 丁\nlake 丂@@\nodd 龘\n\n", encoding="utf-8")
    return HotwordTokenizer(pack)


def test_characters_are_taken_one_by_one(tokenizer: HotwordTokenizer) -> None:
    assert tokenizer.ids("一丁一") == (3, 4, 3)


@pytest.mark.parametrize("word", ["Ray", "一丁", "ray"])
def test_words_of_the_dictionary_are_written_as_it_says(
    tokenizer: HotwordTokenizer, word: str
) -> None:
    assert tokenizer.ids(word) == (3, 4)


def test_mixed_words_and_phrases_are_written_part_by_part(tokenizer: HotwordTokenizer) -> None:
    assert tokenizer.ids("丂ray 丂") == (5, 3, 4, 5)


@pytest.mark.parametrize("word", ["龘", "unheard", "lake", "odd", "一龘", "<unk>", "", " "])
def test_word_with_a_letter_that_is_not_in_the_vocabulary_is_refused(
    tokenizer: HotwordTokenizer, word: str
) -> None:
    assert tokenizer.ids(word) is None


def test_pack_without_a_dictionary_spells_characters(tmp_path: Path) -> None:
    pack = tiny_paraformer(tmp_path / "pack", TinyParaformer())
    assert HotwordTokenizer(pack).ids("丁一") == (4, 3)
    assert HotwordTokenizer(pack).ids("ray") is None


@pytest.mark.parametrize(
    ("word", "ids"),
    [
        ("一·丁", (3, 4)),
        ("一・丁", (3, 4)),
        ("ray.丂", (3, 4, 5)),
        ("ray-丂", (3, 4, 5)),
        ("《一丁》", (3, 4)),
        ("一+", None),
        ("一&丁", None),
        ("-", None),
        ("·", None),
    ],
)
def test_unspoken_punctuation_is_skipped_and_other_signs_are_not_encodable(
    tokenizer: HotwordTokenizer, word: str, ids: tuple[int, ...] | None
) -> None:
    assert tokenizer.ids(word) == ids
