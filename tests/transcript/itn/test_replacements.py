from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from serve_app.core.records import RecordingEnd, Token
from serve_app.transcript.itn import Replacement, TextRules, apply_rules, parse_replacements
from serve_app.transcript.itn.replacements import MAX_REPLACEMENTS, Replacer, merge_replacements
from serve_app.transcript.transcript import MarkedToken, Sentence, TranscriptEvent


def sentence(*words: str) -> Sentence:
    """Words of 100 ms each; a mark at a word's end follows it."""
    tokens = []
    for index, word in enumerate(words):
        mark = word[-1] if len(word) > 1 and word[-1] in "，。" else ""
        text = word.removesuffix(mark) if mark else word
        tokens.append(MarkedToken(Token(text, 100 * index, 100 * index + 100, 0.9), mark))
    return Sentence(tuple(tokens))


def replaced(said: Sentence, pairs: dict[str, str]) -> str:
    done = Replacer(Replacement(*pair) for pair in pairs.items()).replace(said)
    return "" if done is None else done.text


@pytest.mark.parametrize(
    "text", ['{"云梯": "云T", "甲": ""}', "云梯=>云T\n# a comment\n\n甲 => ", "云梯=>云T，甲=>"]
)
def test_all_forms_of_a_list_are_read(text: str) -> None:
    assert parse_replacements(text) == (Replacement("云梯", "云T"), Replacement("甲", ""))


@pytest.mark.parametrize(
    "text",
    [
        "云梯", "=>云", "{broken", '{"a": 1}', "a=>b=>c", "甲" * 65 + "=>乙", "甲=>\x07",
        "\n".join(f"w{n}=>r" for n in range(MAX_REPLACEMENTS + 1)), "{" * 100_000,
    ],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_replacements(text)


def test_phrase_becomes_one_token_with_all_its_time() -> None:
    done = Replacer([Replacement("语算", "预算")]).replace(sentence("说", "明", "语", "算。", "好"))
    assert done is not None
    assert done.text == "说明预算。好"
    merged = done.tokens[2]
    assert (merged.token.start_ms, merged.token.end_ms, merged.mark) == (200, 400, "。")


def test_phrase_is_not_found_across_a_mark() -> None:
    assert replaced(sentence("语，", "算"), {"语算": "预算"}) == "语，算"


def test_latin_phrase_is_a_whole_word_in_any_case() -> None:
    said = sentence("category", "Cat", "和", "cat")
    assert replaced(said, {"cat": "CATS"}) == "category CATS和CATS"


def test_phrase_of_several_latin_words_is_found() -> None:
    assert replaced(sentence("用", "pie", "torch", "训"), {"pie torch": "PyTorch"}) == "用PyTorch训"


def test_part_of_a_longer_token_is_replaced() -> None:
    assert replaced(sentence("今天气", "好"), {"天气": "Wetter"}) == "今Wetter好"


def test_longer_phrase_counts_and_nothing_is_replaced_twice() -> None:
    said = sentence("甲", "乙", "甲")
    assert replaced(said, {"甲": "乙", "甲乙": "丙", "乙": "丁"}) == "丙乙"


def test_removed_phrase_leaves_its_mark() -> None:
    assert replaced(sentence("好", "嗯。", "对"), {"嗯": ""}) == "好。对"
    assert replaced(sentence("嗯"), {"嗯": ""}) == ""


def test_those_of_the_request_come_before_those_of_the_service() -> None:
    request, service = (Replacement("A", "b"),), (Replacement("a", "c"), Replacement("d", "e"))
    assert merge_replacements(request, service) == (request[0], service[1])


async def test_replaced_phrase_keeps_its_numbers_in_words() -> None:
    async def events() -> AsyncGenerator[TranscriptEvent]:
        yield sentence("二", "十", "里", "铺", "二", "十", "个")
        yield sentence("嗯")
        yield RecordingEnd(700)

    rules = TextRules(True, (Replacement("二十里铺", "二十里铺"), Replacement("嗯", "")))
    done = [event async for event in apply_rules(events(), rules)]
    assert [e.text if isinstance(e, Sentence) else e for e in done] == [
        "二十里铺20个", RecordingEnd(700),
    ]  # fmt: skip
