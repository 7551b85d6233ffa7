"""Chinese phrases whose numerals stay words: idioms, festivals, names.

Only phrases that the rules in `spans` would write in digits are listed. Idioms of single digits
(三心二意) need no entry, because a single digit is never rewritten.
"""

from __future__ import annotations

import re

_IDIOMS = """
十八般 女大十八变 十八罗汉 十八层地狱 十八线 十八相送 十三太保 十三香 十三陵
十三行 十三经 十三妹 十四行诗 十五的月亮 十五个吊桶 二十四史 二十五史 二十四孝 二十四桥
二十八宿 三十而立 三十六计 三十六策 三十六行 三百六十行 七十二行 七十二家房客 四十不惑
四十而不惑 五十知天命 五十而知天命 六十花甲 六十而耳顺 六十甲子 七十古来稀 人生七十 八十一难
五十步笑 一百二十个心 一百二十个不 一百个不 一百个放心 一万个不 一万个放心 一万年太久
一千零一夜 一百单八将 十万八千里 十万火急 十万个为什么 十万大山 十二万分 十二分地
二万五千里长征 八千里路 三千弱水 弱水三千 三千宠爱 三千佳丽 三千青丝 三千烦恼 三千世界
三千大千 三千尺 三千丈 食客三千 后宫三千 弟子三千 八百里秦川 八百里洞庭 八百壮士 五百罗汉
五百年前是一家 三百回合 三百六十五行 二十年河东 二十年河西 三十年河东 三十年河西 四十年河东
四十年河西 二十八星宿 三六九等 三三见九 一点一滴 一点一点 三点一线 两点一线
四点一线 一二三木头人 三十老娘 五十而立  万儿八千
三十晚上 十月革命 十月怀胎 怀胎十月 十月围城 五月天 六月飞雪 六月飞霜 六月雪 七月流火 七月半
八月飘香 五月花 二月兰 八月未央 十二月党 三月不知肉味 烟花三月 阳春三月 四月天 七月七
九一八 一二九 一二八事变 四一二政变 四一二反 八一三事变 八一三淞沪 五二零 三七二十一
双十一 双十二 五卅 十八摸 十二金钗 十二木卡姆 十二铜人 四十大盗 十三不靠
"""
_CONTEXTUAL = (
    # The First of October and its holidays; a party congress; a five-year plan.
    r"十一(?=假期|长假|黄金周|小长假|国庆|放假|期间|前后)|(?<=国庆)十一",
    r"(?:十[一二三四五六七八九]|二十[一二三四五六七八九]?)大"
    r"(?=报告|代表|精神|召开|会议|以来|之后|以后|之前|以前|开幕|闭幕|党章|选出|提出|$)",
    r"(?<=党的)[一二三四五六七八九十]{1,3}大",
    r"十[一二三四五]五(?=规划|计划|期间|时期|开局|收官|末)",
    # The lunar calendar.
    r"(?:正月|腊月|冬月|闰.?月|大年|(?<!\w)年|过了?年|农历.{1,3}月|阴历.{1,3}月|旧历.{1,3}月)"
    r"(?:初?[一二三四五六七八九十廿]{1,3})(?![号日年月天岁个多几])",
    r"初[一二三四五六七八九十]{1,2}",
    # Approximations and names that are part of longer numbers.
    r"(?<![一二两三四五六七八九])(?:百八十|千八百)",
    r"(?<![一二两三四五六七八九零千])二百五(?!十)(?![块元万])",
    r"(?<![一二三四五六七八九零])(?:九一八|一二九)(?![一二三四五六七八九零])",
    # Odd and even days, weekdays.
    r"(?:一三五|二四六)(?=[^零一二三四五六七八九十百千万亿]|$)",
    r"(?:周|星期|礼拜)[一二三四五六日天]{2,}",
    # 七七八八, 三三四四.
    r"(?<![号码是])(?:一一二二|二二三三|三三四四|四四五五|五五六六|六六七七|七七八八|八八九九)",
    # An adverb, not ten million.
    r"[一二两三四五六七八九]千万(?=不|别|要|记|小心|注意|当心|莫|勿)",
    r"十万分(?=感谢|抱歉|荣幸|火急)",
    # 几十亿, 好几十万, 数十万人; but 人数十万.
    r"(?:几|(?<![人总次倍指点分件基参计算岁字票])数)[十百千万亿]+",
    r"[二三四五六七八九]?十好几",
)
_MONTH_WITHOUT_DAY = (
    # 三月三, 九月九, 八月十五: a festival or a date, depending on the context.
    r"(?:十[一二]|[一二三四五六七八九十])月[一二三四五六七八九十]"
    r"(?![一二三四五六七八九十零号日多几个年月天位名次万百千亿])",
    r"(?<!十)[七八]月十五(?![号日])",
)
_BY_LENGTH = sorted(map(re.escape, _IDIOMS.split()), key=len, reverse=True)
_PHRASES = re.compile("|".join((*_BY_LENGTH, *_CONTEXTUAL, *_MONTH_WITHOUT_DAY)))


def find_idioms(chars: str) -> list[tuple[int, int]]:
    """Returns the [start, end) of every phrase in the text that stays as spoken."""
    return [found.span() for found in _PHRASES.finditer(chars)]
