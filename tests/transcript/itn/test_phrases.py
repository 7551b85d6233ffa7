"""What a Chinese reader expects of numbers in running text, by rule."""

from __future__ import annotations

import random
import re

import pytest

from recipes.demo_packs.sentences import draw_sentence, strip_marks
from serve_app.transcript.itn.numerals import NUMERALS
from serve_app.transcript.itn.spans import find_spans


def written(said: str) -> str:
    words = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", said)
    text, position = "", 0
    for span in find_spans(words):
        text += "".join(words[position : span.start]) + span.text
        position = span.end
    return text + "".join(words[position:])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # Versions and addresses have several points.
        ("地址是十点零点零点一", "地址是10.0.0.1"),
        ("升级到二点十三点零", "升级到2.13.0"),
        # Decimals.
        ("增长了一点五倍", "增长了1.5倍"),
        ("有一点五米高", "有1.5米高"),
        ("涨了两点五个百分点", "涨了2.5个百分点"),
        ("温度是二十三点五", "温度是23.5"),
        # Times.
        ("下午两点零八", "下午2点08"),
        ("两点五十五到", "2点55到"),
        ("十点到十二点", "10点到12点"),
        # Ranges: both ends alike.
        ("百分之二十到三十", "20%到30%"),
        ("五到十个人", "5到10个人"),
        ("三十到四十岁", "30到40岁"),
        # What goes on after an amount.
        ("三十五块六", "35块6"),
        ("十二斤八两", "12斤8两"),
        ("十五元五角", "15元5角"),
        ("三十七度二", "37度2"),
        # Sums and scores.
        ("快一点五分钟后见", "快一点5分钟后见"),
        ("三乘以二点五", "3乘以2.5"),
        ("比分三比二", "比分3比2"),
        ("十比九", "10比9"),
        ("五又三分之二", "5又2/3"),
        # Digits after a word that announces them.
        ("密码三四五六", "密码3456"),
        ("尾号七七八八", "尾号7788"),
        ("拨打一一零", "拨打110"),
        ("八九年三月", "89年3月"),
        ("正负二十", "正负20"),
        ("十一月二十三", "11月23"),
    ],
)
def test_certain_number_is_written_in_digits(said: str, expected: str) -> None:
    assert written(said) == expected


@pytest.mark.parametrize(
    "said",
    [
        # A time of day with a word behind it is no decimal.
        "六点一起吃饭", "八点一定到", "九点三个人来", "我三点五分到", "喝一点五粮液",
        "买一点零件", "早一点三点出发",
        # Approximations.
        "学了五六年", "两三年", "两三百到五百", "好几十万", "数百万人", "四十好几", "五六年级",
        # Digits that count.
        "三四五线城市", "一三五上班", "三二一开始",
        # The last digit may belong to what follows.
        "两万一晚", "三百一位", "八千五个人",
        # Idioms, names and festivals.
        "三十而立", "十八层地狱", "三百六十行", "五十步笑百步", "十月怀胎", "五月天",
        "二月二", "腊月二十三", "正月初五", "大年初一", "十八大以来", "十四五规划", "十一黄金周",
        "弱水三千", "飞流直下三千尺", "三点一线", "一点一滴", "七七八八", "三六九等",
        "两千万别忘",
    ],
)  # fmt: skip
def test_uncertain_number_stays_as_it_was_said(said: str) -> None:
    assert written(said) == said


def test_sentences_without_numerals_are_never_changed() -> None:
    rng = random.Random(7)
    seen: set[str] = set()
    while len(seen) < 2000:
        sentence = strip_marks(draw_sentence(rng))
        if not NUMERALS & set(sentence):
            seen.add(sentence)
    assert [sentence for sentence in seen if written(sentence) != sentence] == []
