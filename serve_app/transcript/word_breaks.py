"""Rates the places where a line of text may end, with a short list of Chinese words.

Chinese is written without spaces. A full dictionary would be slow, large and wrong about names.
Most good line breaks are next to a few hundred very common words, which are listed here.
"""

from __future__ import annotations

from collections.abc import Sequence

INSIDE_WORD = 100.0
"""The cost of a break inside a word or a number."""

_AFTER_PARTICLE = 3.0
_BETWEEN_WORDS = 4.0
_BESIDE_WORD = 6.0
_UNKNOWN = 9.0
_MIDDLE_OF_PHRASE = 14.0

_NUMERALS = frozenset("〇零一二三四五六七八九十百千万亿两几点")
_UNITS = frozenset("年月日号点分秒元块毛角个位名次件条张台份天周岁度米吨斤克升倍期章节层楼人")
_PARTICLES = frozenset("的了吧吗呢啊呀嘛")
_PREFIXES = frozenset("第约近")

_PHRASE_STARTS = (
    "以及 关于 但是 因为 所以 如果 而且 然后 并且 或者 还是 不过 虽然 由于 为了 对于 根据 "
    "按照 通过 可是 因此 于是 就是 只要 只有 无论 即使 除了 另外 同时 首先 其次 最后 比如 "
    "例如 其实 和 与 或 在 把 被 从 向 但 而 并 跟 对 让 给 由 将 "
)
_COMMON_WORDS = (
    "我们 你们 他们 她们 它们 咱们 大家 自己 别人 这个 那个 哪个 这些 那些 这样 那样 这里 "
    "那里 哪里 这边 那边 这么 那么 怎么 什么 怎样 多少 几个 一个 一些 一下 一点 一直 一起 "
    "一样 一定 一般 一共 一次 一切 今天 明天 昨天 后天 前天 今年 明年 去年 现在 以前 以后 "
    "之前 之后 以上 以下 以来 时候 时间 刚才 马上 已经 正在 曾经 将来 最近 后面 前面 上面 "
    "下面 里面 外面 旁边 中间 左边 右边 对面 附近 上午 下午 中午 早上 晚上 凌晨 星期 周末 "
    "月底 年底 小时 分钟 可以 可能 能够 应该 应当 需要 必须 希望 愿意 想要 打算 准备 开始 "
    "继续 结束 完成 进行 没有 不是 不能 不要 不会 不用 不同 不但 不仅 也是 都是 还有 只是 "
    "非常 特别 比较 更加 十分 尤其 几乎 大概 大约 左右 其中 其他 其它 所有 全部 部分 每个 "
    "各个 各位 许多 很多 不少 讨论 介绍 说明 解释 汇报 报告 分析 研究 总结 评审 决定 确定 "
    "确认 同意 反对 支持 帮助 提供 提出 提高 提醒 建议 意见 问题 答案 原因 结果 办法 方法 "
    "方式 方面 方向 方案 项目 进度 计划 安排 分工 任务 工作 工程 会议 公司 部门 同事 同学 "
    "领导 经理 主任 老师 先生 女士 客户 用户 朋友 情况 内容 信息 数据 资料 文件 文档 合同 "
    "预算 成本 价格 费用 质量 安全 服务 产品 市场 销售 技术 系统 网络 电脑 手机 电话 软件 "
    "设备 功能 测试 设计 开发 管理 组织 活动 培训 招聘 学习 学校 学生 教育 医院 医生 健康 "
    "社会 国家 政府 政策 经济 发展 改革 企业 行业 投资 银行 交易 增长 下降 增加 减少 变化 "
    "影响 关系 作用 重要 主要 基本 简单 复杂 困难 容易 方便 清楚 明白 知道 认为 觉得 以为 "
    "发现 看到 听到 得到 收到 见到 遇到 想到 感到 达到 使用 利用 采用 选择 处理 解决 检查 "
    "修改 更新 联系 沟通 交流 合作 参加 负责 努力 注意 记得 忘记 喜欢 谢谢 感谢 对不起 没关系 "
    "不好意思 欢迎 再见 你好 您好 大家好 中国 世界 城市 地方 地区 地址 地点 北京 上海 人们 "
    "孩子 家庭 父母 妈妈 爸爸 生活 生产 东西 事情 故事 语言 声音 文字 电影 音乐 新闻 节目 "
    "天气 环境 能力 水平 程度 过程 经验 机会 条件 标准 要求 目标 目的 目前 当时 当然 自然 "
    "突然 虽说 的话 的确 了解 了不起 为什么 怎么样 怎么办 有没有 是不是 能不能 可不可以 "
    "越来越 实际上 事实上 基本上 总的来说 也就是说 百分之 互联网 人工智能 现实 存在 实在 内在 "
    "和平 和谐 温和 总和 共和 饱和 与会 参与 给予 把握 把关 被子 从前 从事 自从 服从 但凡 "
    "而已 并不 合并 面对 针对 相对 绝对 应对 对方 对象 对待 对应 让步 给力 由来 理由 自由 "
    "将军 将近 即将 导向 向来 趋向 或许 跟踪 着急 接着 跟着 意味着 沿着 本来 后来 原来 起来 "
    "出来 进来 回来 过来 下来 上来 出去 进去 回去 过去 号码 验证 验证码 密码 账户 余额 查询 "
    "最低 最高 最好 最大 最小 气温 温度 紧张 可靠 高兴 漂亮 干净 舒服 每年 每月 每天 每次 "
    "每人 吸引 记录 备忘录 儿子 女儿 电子 邮件 邮箱 地铁 火车 飞机 机场 车站 医药 感冒 博物馆 "
    "图书馆 公园 商店 超市 饭店 酒店 房间 客厅 厨房 办公室 会议室 顺便 看看 想想 试试 重复 "
    "另外 另起 段落 标题 据说 报道 发布 预警 大雪 大雨 台风 退款 换货 维修 投诉 咨询 订单 "
    "物流 发票 优惠 免费 打折 满意 感觉 心里 身体 运动 跑步 游泳 旅行 旅游 照片 图片 视频 "
    "文章 作业 考试 成绩 老板 员工 团队 季度 年度 销售额 利润 收入 支出 投入 合理 合适 适合 "
    "马路 路上 路口 开车 打车 坐车 上班 下班 上学 放学 吃饭 喝水 睡觉 休息 生日 结婚 首都 "
    "都市 上线 推迟 提前 延期 预计 预期 超过 不足 足够 成功 失败 错误 正确 真正 真的 确实 "
    "的时候 那时 同样 不一样 差不多 有点 有些 有人 没人 所以说 换句话说 一方面 另一方面 第一 "
    "第二 第三 "
)
_LEADERS = frozenset(_PHRASE_STARTS.split())
"""Words that start a phrase: a good break is before them."""

_WORDS = frozenset(_COMMON_WORDS.split()) | {word for word in _LEADERS if len(word) > 1}
_LONGEST_WORD = max(map(len, _WORDS))


def break_costs(words: Sequence[str]) -> list[float]:
    """Returns the cost for the reader of a line break after each word, ignoring marks.

    Args:
        words: one CJK character each, or one word or number of another script.

    Returns:
        One cost for each word but the last: `INSIDE_WORD` inside a word or number, less for
        better places.
    """
    inside, starts, ends = _known_words(words)
    costs: list[float] = []
    for number in range(1, len(words)):
        before, after = words[number - 1], words[number]
        if inside[number] or _is_one_number(words, number):
            costs.append(INSIDE_WORD)
        elif not _is_cjk(before) or not _is_cjk(after):
            costs.append(_BETWEEN_WORDS)
        elif after in _PARTICLES:
            costs.append(_MIDDLE_OF_PHRASE)
        elif before in _PARTICLES or _leads(words, number, starts):
            costs.append(_AFTER_PARTICLE)
        elif before in _LEADERS:
            costs.append(_MIDDLE_OF_PHRASE)
        elif starts[number] and ends[number]:
            costs.append(_BETWEEN_WORDS)
        else:
            costs.append(_BESIDE_WORD if starts[number] or ends[number] else _UNKNOWN)
    return costs


def _known_words(words: Sequence[str]) -> tuple[list[bool], list[int], list[bool]]:
    """Returns for each position: whether it is in a word, the length of the word that starts
    there (0 for none), and whether a word ends there.

    From left to right, the longest word at each position is chosen.
    """
    inside, starts, ends = (
        [False] * (len(words) + 1),
        [0] * (len(words) + 1),
        [False] * (len(words) + 1),
    )
    at = 0
    while at < len(words):
        length = _word_at(words, at)
        if length:
            starts[at], ends[at + length] = length, True
            for place in range(at + 1, at + length):
                inside[place] = True
        at += max(length, 1)
    return inside, starts, ends


def _word_at(words: Sequence[str], at: int) -> int:
    if len(words[at]) != 1:
        return 0
    for length in range(min(_LONGEST_WORD, len(words) - at), 1, -1):
        candidate = words[at : at + length]
        if all(len(one) == 1 for one in candidate) and "".join(candidate) in _WORDS:
            return length
    return 0


def _leads(words: Sequence[str], at: int, starts: Sequence[int]) -> bool:
    if starts[at]:
        return "".join(words[at : at + starts[at]]) in _LEADERS
    return words[at] in _LEADERS


def _is_one_number(words: Sequence[str], at: int) -> bool:
    """Whether a break before word `at` would split a number, or a number and its unit."""
    before, after = words[at - 1], words[at]
    counts = before in _NUMERALS or before[-1].isdigit()
    if counts and (after in _NUMERALS or after in _UNITS or after[0] in "%％"):
        return True
    if after in _NUMERALS or after[0].isdigit():
        return before in _PREFIXES or "".join(words[max(at - 3, 0) : at]) == "百分之"
    return False


def _is_cjk(word: str) -> bool:
    return len(word) == 1 and word > "\u2e7f"
