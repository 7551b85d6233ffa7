from __future__ import annotations

import random
from dataclasses import replace

import pytest

from serve_app.core.errors import DeviceUnavailable, PackCorrupt, PackIncomplete
from serve_app.engines.ct_transformer import CtTransformerEngine
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.transcript.punctuation import punctuate_all

MARK_OF_ID = {0: "", 1: "", 2: "，", 3: "。", 4: "？", 5: "、"}


@pytest.fixture(scope="module")
def pack(pack_store: PackStore) -> PackContents:
    return resolve("ct-punc-demo", pack_store, fetch=False)


@pytest.fixture(scope="module")
def engine(pack: PackContents) -> CtTransformerEngine:
    return CtTransformerEngine(pack)


@pytest.fixture(scope="module")
def texts(pack: PackContents) -> list[list[str]]:
    """Texts of lengths around the window's borders, with words the pack does not know."""
    rng = random.Random(3)
    known = [token for token in pack.tokens if len(token) == 1 and token > "\u4e00"]
    lengths = [1, 2, 3, 19, 20, 21, 40, 41, 59, 199, 200, 220, 221, 300]
    return [
        [rng.choice(known) if rng.random() < 0.97 else rng.choice("㐀㐁㐂") for _ in range(length)]
        for length in lengths
    ]


def test_each_word_gets_one_mark(engine: CtTransformerEngine, texts: list[list[str]]) -> None:
    labels = engine.label(texts)
    assert [len(marks) for marks in labels] == [len(words) for words in texts]
    assert {mark for marks in labels for mark in marks} <= {"", "，", "。", "？", "、"}


def test_a_text_does_not_depend_on_its_batch_mates(
    engine: CtTransformerEngine, texts: list[list[str]]
) -> None:
    assert engine.label(texts) == [engine.label([words])[0] for words in texts]
    assert engine.label(texts[::-1]) == engine.label(texts)[::-1]


def test_texts_without_words_get_no_labels(engine: CtTransformerEngine) -> None:
    assert engine.label([]) == []
    assert engine.label([[]]) == [[]]
    alone = engine.label([["我", "们"]])[0]
    assert engine.label([[], ["我", "们"], []]) == [[], alone, []]


def test_unknown_words_are_labeled_alike(engine: CtTransformerEngine) -> None:
    assert engine.label([["我", "㐀"]]) == engine.label([["我", "nosuchword"]])


def test_another_model_class_is_refused(pack: PackContents) -> None:
    with pytest.raises(PackCorrupt, match="CTTransformer"):
        CtTransformerEngine(replace(pack, model_class="Paraformer"))


def test_another_encoder_is_refused(pack: PackContents) -> None:
    conf = {**pack.config["encoder_conf"], "input_layer": "linear"}
    with pytest.raises(PackCorrupt, match="encoder"):
        CtTransformerEngine(replace(pack, config={**pack.config, "encoder_conf": conf}))


def test_a_checkpoint_with_too_few_layers_is_refused(pack: PackContents) -> None:
    conf = {**pack.config["encoder_conf"], "num_blocks": 40}
    with pytest.raises(PackIncomplete):
        CtTransformerEngine(replace(pack, config={**pack.config, "encoder_conf": conf}))


def test_unavailable_device_is_refused(pack: PackContents) -> None:
    with pytest.raises(DeviceUnavailable):
        CtTransformerEngine(pack, device="cuda:99")


@pytest.mark.reference
def test_marks_are_those_of_funasr(
    engine: CtTransformerEngine, pack: PackContents, texts: list[list[str]]
) -> None:
    from funasr import AutoModel

    reference = AutoModel(model=str(pack.directory), disable_update=True, disable_pbar=True, ncpu=1)
    for words, pairs in zip(texts, punctuate_all(engine, texts), strict=True):
        [found] = reference.generate(input="".join(words))
        assert [mark for _, mark in pairs] == [MARK_OF_ID[int(i)] for i in found["punc_array"]]
        assert "".join(word + mark for word, mark in pairs) == found["text"]
