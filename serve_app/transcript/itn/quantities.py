"""Reads numbers in their phrase: decimals, versions, and the context that makes them certain."""

from __future__ import annotations

from itertools import pairwise

from serve_app.transcript.itn.numerals import DIGITS, Line, read_cardinal, read_digits

MEASURES = (
    "公斤", "公里", "千米", "厘米", "毫米", "平方米", "立方米", "小时", "分钟", "秒钟", "毫秒",
    "岁", "摄氏度", "赫兹", "美元", "欧元", "英镑", "日元", "港元", "港币", "块钱", "毛钱",
)  # fmt: skip
"""Before these units a single digit is a measurement, not an expression."""

_UNITS_AFTER_DECIMALS = (
    *MEASURES, "个小时", "个百分点", "个亿", "个点", "百分点", "倍", "米", "元", "块", "度", "秒",
    "折", "级", "版", "平方", "平米", "吨", "克", "斤", "升", "毫升", "公顷", "亩", "英里", "英尺",
    "英寸", "寸", "尺", "伏", "瓦", "安", "欧", "兆", "千", "分贝", "马力", "海里", "光年", "角",
    "万", "亿", "以上", "以下", "以内", "左右", "上下", "至", "到", "多", "和", "与", "或",
    "比", "乘", "除", "加", "减", "等于", "号楼",
)  # fmt: skip
"""Before these words a single digit after 点 is a decimal; 六点一起吃饭 is a time of day."""

_LITTLE_BEFORE = (
    "这", "那", "哪", "差", "早", "晚", "快", "慢", "多", "少", "高", "低", "好", "大", "小",
    "轻", "重", "长", "短", "远", "近", "强", "弱", "贵", "便宜", "热", "冷", "紧", "松", "亮",
    "暗", "深", "浅", "胖", "瘦", "硬", "软", "稳", "准", "细", "粗", "懂",
)  # fmt: skip
"""After these 一点 is "a little"."""

_PERHAPS_LITTLE_BEFORE = (
    "有", "吃", "喝", "带", "给", "买", "学", "留", "剩", "拿", "做", "说", "的", "了", "着", "加",
)  # fmt: skip
"""After these 一点 is "a little", unless a unit follows: 有一点五米高."""

_ZERO_WORDS = ("食", "钱", "件", "头", "花", "星", "碎", "售", "活", "工", "用", "和", "距", "下",
               "部", "担", "嘴", "团", "添", "容", "差", "基", "失", "接")  # fmt: skip
"""With these 零 starts a word: 零食, 零钱."""

_CLASSIFIERS = ("个", "位", "名", "晚", "天", "年", "月", "平", "人", "次", "斤", "张", "套", "件",
                "台", "辆", "只", "条", "小时", "股", "份", "桶", "克", "夜", "瓶", "箱", "盒",
                "节", "堂", "场", "页", "字", "篇", "首", "周", "季", "期", "吨", "米")  # fmt: skip

_NUMBER_CONTEXT = (
    "号码", "密码", "电话", "手机", "拨打", "拨", "编号", "单号", "尾号", "工号", "学号", "卡号",
    "账号", "帐号", "验证码", "房间", "房号", "邮编", "邮政编码", "代码", "型号", "区号", "车牌",
    "航班", "车次", "编码", "序列号", "身份证", "分机", "转", "号", "数字", "坐标", "口令", "暗号",
    "取件码", "码", "热线", "打", "按",
)  # fmt: skip


_HOURS = 24


def read_number(line: Line, position: int) -> tuple[int, str] | None:
    """Returns the end and the written form of a number that is certain, else None."""
    run = line.run(position)
    end = position + len(run)
    if not run:
        return None
    cardinal = read_cardinal(run)
    whole = cardinal.text if cardinal is not None else read_digits(run)
    if whole is None:
        return None
    if not line.follows(end, "点"):
        return end, whole
    return _with_decimals(line, position, end, whole) or (end, whole)


def read_version(line: Line, position: int) -> tuple[int, str] | None:
    """Reads digits with two 点 or more between them: 一点二点三, an address or a version."""
    parts: list[str] = []
    while True:
        run = line.run(position)
        cardinal = read_cardinal(run)
        part = read_digits(run) or (cardinal.text if cardinal is not None else None)
        if part is None:
            return None
        parts.append(part)
        position += len(run)
        if not line.follows(position, "点"):
            break
        if not line.run(position + 1):
            return None  # 一点两点三点: consecutive times of day
        position += 1
    return (position, ".".join(parts)) if len(parts) > 2 else None


def _with_decimals(line: Line, start: int, point: int, whole: str) -> tuple[int, str] | None:
    """Reads the decimals after 点; None if they may be something else."""
    decimals, unit = split_unit(line.run(point + 1))
    digits = read_digits(decimals)
    end = point + 1 + len(decimals)
    if digits is None or whole[-1] in "万亿" or line.follows(end + len(unit), "点"):
        return None
    if line.follows(end, *_ZERO_WORDS) and decimals[-1] == "零" and not unit:
        return None
    said = line.chars[start:point]
    has_unit = bool(unit) or line.follows(end, *_UNITS_AFTER_DECIMALS)
    if said == "一" and line.preceded(start, *_LITTLE_BEFORE):
        return None
    if has_unit:
        return end + len(unit), f"{whole}.{digits}{unit}"
    if said == "一" and line.preceded(start, *_PERHAPS_LITTLE_BEFORE):
        return None
    if len(digits) == 2 and digits[0] == "0" and 0 < int(whole) <= _HOURS:
        return None  # 十二点零五 is more likely a time of day
    is_over = line.ends(end) or line.chars[end] == "\0"
    if len(digits) == 1 and not (said in ("零", "〇") or is_over):
        return None
    return end + len(unit), f"{whole}.{digits}{unit}"


def split_unit(run: str) -> tuple[str, str]:
    """Divides 二亿 into 二 and 亿."""
    return (run[:-1], run[-1]) if run[-1:] in ("万", "亿") else (run, "")


def ends_approximation(line: Line, position: int) -> bool:
    """Whether this ends a range that starts with an approximation: 两三百到五百."""
    if not line.preceded(position, "到", "至"):
        return False
    start = position - 1
    while start and line.run_end(start - 1) == position - 1:
        start -= 1
    run = line.chars[start : position - 1]
    return bool(run) and read_cardinal(run) is None and read_digits(run) is None


def is_counting(line: Line, position: int) -> bool:
    """Whether digits count up or down (二三四线, 三二一) or may be an approximation (三四年).

    After a word that introduces a number (密码一二三四) they are one.
    """
    run = line.run(position)
    values = [DIGITS[char] for char in run if char in DIGITS]
    if len(values) != len(run) or len(run) < 2 or line.preceded(position, *_NUMBER_CONTEXT):
        return False
    if line.preceded(position, "是", "为") and len(run) > 3:
        return False
    steps = {after - before for before, after in pairwise(values)}
    return len(steps) == 1 and steps <= {1, -1}


def is_approximate_year(line: Line, position: int) -> bool:
    """Whether two digits before 年 may be a period: 七八年, 三五年; but not 八九年三月."""
    run, end = line.run(position), line.run_end(position)
    if len(run) != 2 or not (is_counting(line, position) or run == "三五"):
        return False
    dated = ("初", "底", "末", "春", "夏", "秋", "冬", "上半年", "下半年", "出生", "生人", "毕业")
    month = line.run(end + 1)
    has_month = bool(month) and line.follows(end + 1 + len(month), "月")
    return not (has_month or line.follows(end + 1, *dated) or line.preceded(position, "于"))


def has_doubtful_end(line: Line, position: int) -> bool:
    """Whether the last digit may belong to what follows: 两万一晚, 三百五个人."""
    run, end = line.run(position), line.run_end(position)
    cardinal = read_cardinal(run)
    return (
        cardinal is not None
        and len(run) > 2
        and run[-1] in DIGITS
        and run[-2] in "百千万亿"
        and line.follows(end, *_CLASSIFIERS)
    )
