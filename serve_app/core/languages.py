"""Language codes and the names that are accepted for them."""

from __future__ import annotations

import re
import unicodedata

GUESSED = "auto"
"""Asks for language detection; whisper.cpp uses the same word."""

# Code, then names in lower case: in English, in Chinese, and the language's own.
_NAMES = """
af afrikaans 南非语
ar arabic 阿拉伯语 العربية
az azerbaijani
be belarusian 白俄罗斯语
bg bulgarian 保加利亚语
bn bengali 孟加拉语
bo tibetan 藏语
bs bosnian
ca catalan 加泰罗尼亚语
cs czech 捷克语
cy welsh 威尔士语
da danish 丹麦语
de german 德语 德文 deutsch ger deu
el greek 希腊语
en english 英语 英文 英語 eng
es spanish 西班牙语 西班牙文 castilian español spa
et estonian 爱沙尼亚语
eu basque 巴斯克语
fa persian farsi 波斯语
fi finnish 芬兰语
fr french 法语 法文 français fra fre
ga irish 爱尔兰语
gl galician
he hebrew 希伯来语
hi hindi 印地语 हिन्दी
hr croatian 克罗地亚语
hu hungarian 匈牙利语
hy armenian 亚美尼亚语
id indonesian 印尼语 印度尼西亚语
is icelandic 冰岛语
it italian 意大利语 italiano ita
ja japanese 日语 日文 日本語 jpn jp
ka georgian 格鲁吉亚语
kk kazakh 哈萨克语
km khmer 高棉语
ko korean 韩语 韩文 한국어 kor
la latin 拉丁语
lo lao 老挝语
lt lithuanian 立陶宛语
lv latvian 拉脱维亚语
mk macedonian
ml malayalam
mn mongolian 蒙古语
mr marathi
ms malay 马来语
my burmese 缅甸语
ne nepali 尼泊尔语
nl dutch flemish 荷兰语 nederlands
no norwegian 挪威语
pa punjabi 旁遮普语
pl polish 波兰语 polski
ps pashto 普什图语
pt portuguese 葡萄牙语 葡萄牙文 português por
ro romanian 罗马尼亚语
ru russian 俄语 俄文 русский rus
sk slovak 斯洛伐克语
sl slovenian 斯洛文尼亚语
so somali 索马里语
sq albanian 阿尔巴尼亚语
sr serbian 塞尔维亚语
sv swedish 瑞典语 svenska
sw swahili 斯瓦希里语
ta tamil 泰米尔语
te telugu 泰卢固语
th thai 泰语 ไทย
tl tagalog filipino 他加禄语
tr turkish 土耳其语 türkçe
ug uyghur 维吾尔语
uk ukrainian 乌克兰语 українська
ur urdu 乌尔都语
uz uzbek 乌兹别克语
vi vietnamese 越南语
yue cantonese 粤语 广东话 粵語 廣東話
zh chinese mandarin putonghua 中文 汉语 漢語 普通话 普通話 国语 國語 华语 華語 zho chi cmn cn
"""
_CODES = {
    name: code
    for line in _NAMES.splitlines()
    if line
    for code, *names in [line.split()]
    for name in names
}
_GUESS_NAMES = frozenset({GUESSED, "detect", "autodetect", "auto-detect", "自动"})
_END_OF_FIRST_PART = re.compile(r"[-_.@\s(（]")
_CODE = re.compile(r"[a-z]{2,3}")

NAMES_OF_LANGUAGES: tuple[str, ...] = tuple(name for name in _CODES if len(name) > 3)
"""Language names, longer than codes, that are accepted instead of a code."""


def language_code(name: str) -> str:
    """Returns the bare code of a language.

    `zh` for `zh`, `zh-CN`, `ZH_cn`, `Chinese`, `Mandarin` and `中文`; `auto` for detection.
    Anything else comes back in lower case.

    Models distinguish languages, not regions, so a region after the code is ignored.
    Source: BCP 47 puts the language first and a hyphen after it; POSIX locales an underscore.
    """
    whole = unicodedata.normalize("NFKC", name).strip().lower()
    if whole in _GUESS_NAMES:
        return GUESSED
    if whole in _CODES:
        return _CODES[whole]
    first = _END_OF_FIRST_PART.split(whole)[0]
    return _CODES.get(first, first)


def names_a_language(name: str) -> bool:
    """Whether a text has the form of a language code or is a known name."""
    return _CODE.fullmatch(language_code(name)) is not None
