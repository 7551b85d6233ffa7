"""English sentences end with English marks, Chinese ones with Chinese marks."""

from __future__ import annotations

import pytest

from serve_app.core.records import Token
from serve_app.transcript.sentences import SentenceAssembler
from serve_app.transcript.transcript import Transcript


def assembled(*pairs: tuple[str, str]) -> str:
    assembler = SentenceAssembler()
    assembler.push(
        tuple(Token(word, i * 300, i * 300 + 300, 0.9) for i, (word, _) in enumerate(pairs))
    )
    sentences = [*assembler.mark(pairs), *assembler.flush()]
    return Transcript(0, tuple(sentences)).text


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([("well", "，"), ("that", ""), ("is", ""), ("fine", "。")], "well, that is fine."),
        ([("really", "？")], "really?"),
        ([("apples", "、"), ("pears", ""), ("15", "。")], "apples, pears 15."),
        ([("send", ""), ("it", ""), ("to", ""), ("小", ""), ("王", "。")], "send it to小王."),
        ([("我", ""), ("们", ""), ("用", ""), ("API", "，"), ("好", "。")], "我们用API，好。"),
        ([("OK", "，"), ("好", "。")], "OK，好。"),
        ([("39.7", "。")], "39.7。"),
        ([("yes", "。"), ("I", ""), ("do", "。"), ("好", "。")], "yes. I do.好。"),
    ],
)
def test_marks_are_those_of_the_script_of_most_words(
    pairs: list[tuple[str, str]], text: str
) -> None:
    assert assembled(*pairs) == text
