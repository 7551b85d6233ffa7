"""The scripts of the demo recordings.

A line is a template of the recipe, some of its slots filled by hand so that the
meeting makes sense. The others are drawn until the sentence is a held-out one.
"""

from __future__ import annotations

import random
import re

from recipes.demo_packs.sentences import fill_template, is_held_out
from recipes.demo_packs.synthesizer import Voice

_CHAIR = Voice("m6", 190, 48)
_FINANCE = Voice("f2", 195, 52)
_ENGINEER = Voice("m7", 185, 50)
_SERVICE = Voice("f1", 190, 50)
_CHOICE = re.compile(r"\[([^\]]+)\]")  # [a b c]: one of these
_TENS = "[二十 三十 四十 五十 六十 七十 八十]"
_DIGIT = "[一 二 三 四 五 六 七 八 九]"
_HOUR = "[上午九点 上午十点 下午两点 下午三点 下午四点][半 十五分 二十分]"

Script = tuple[tuple[Voice, str], ...]

MEETING: Script = (
    (_CHAIR, "各位同事[早上 上午 下午]好，我们现在开始{verb_meet}{topic}。"),
    (_CHAIR, "{surname}工程师，请你[介绍 汇报 说明 总结]一下{topic}的情况。"),
    (_ENGINEER, f"语音识别项目已经完成了百分之{_TENS}{_DIGIT}，预计{{date}}上线。"),
    (_ENGINEER, "由于[系统升级 安全 测试 质量]的原因，云平台项目推迟到{date}。"),
    (_FINANCE, f"语音识别项目的预算是{_TENS}{_DIGIT}万元，目前已经花了十{_DIGIT}万元。"),
    (_FINANCE, "本季度的销售额比上季度增长了{percent}，超过了预期目标。"),
    (_SERVICE, f"软件一直提示{{problem}}，我已经重启了{_DIGIT}次。"),
    (_SERVICE, "关于{topic}，{dept}还有什么意见吗？"),
    (_CHAIR, f"这次评审一共提出{_TENS}{_DIGIT}条建议，其中[三 四 五 六 七 八 九]个比较紧急。"),
    (_CHAIR, "请{dept}和{dept}在{date}之前{task}。"),
    (_FINANCE, "{surname}经理负责{task}，{surname}经理负责{task}。"),
    (_SERVICE, f"会议改到{{future}}{_HOUR}，地点在{_DIGIT}号会议室。"),
    (_CHAIR, "散会以后，请{surname}{title}把会议记录发给{dept}。"),
)
CLIP: Script = ((_FINANCE, "[今天 明天 后天]{city}的天气怎么样？"),)


def draw_script(script: Script, seed: int) -> list[tuple[Voice, str]]:
    """Fill a script's free slots with held-out sentences, the same for a seed."""
    rng = random.Random(f"script {seed}")

    def choose(match: re.Match[str]) -> str:
        choices: list[str] = match.group(1).split()
        return rng.choice(choices)

    lines: list[tuple[Voice, str]] = []
    for voice, template in script:
        while not is_held_out(text := fill_template(_CHOICE.sub(choose, template), rng)):
            pass
        lines.append((voice, text))
    return lines
