"""The sentence templates, by subject; all of them our own writing.

A slot in braces is a list of `words.WORDS` or a drawer of `numerals.DRAWERS`.
"""

from __future__ import annotations

_TEMPLATES = {
    "meeting": """
今天的会议主要{verb_meet}{topic}和{topic}。
{surname}{title}，请你{verb_meet}一下{topic}的情况。
各位同事{daypart}好，我们现在开始{verb_meet}{topic}。
关于{topic}，{dept}还有什么意见吗？
{dept}的{surname}{title}会在{future}{daypart}{clock}汇报{topic}。
{project}项目已经完成了{percent}，预计{date}上线。
请{dept}和{dept}在{date}之前{task}。
会议改到{future}{daypart}{clock}，地点在{integer}号会议室。
{surname}{title}负责{task}，{surname}{title}负责{task}。
这次评审一共提出{count}{count_item}，其中{count}个比较紧急。
{project}项目的预算是{money}，目前已经花了{money}。
下一项议题是{topic}，由{dept}的同事来介绍。
大家对{topic}有没有其他问题？
如果没有问题，我们就进入下一个议题。
{project}的负责人是谁，什么时候可以交付？
我同意{surname}{title}的看法，{topic}应该优先处理。
散会以后，请{surname}{title}把会议记录发给{dept}。
本季度的销售额比上季度增长了{percent}，超过了预期目标。
由于{topic}的原因，{project}项目推迟到{date}。
{company}的代表{future}{daypart}来访，请{dept}做好接待准备。
""",
    "service": """
您好，这里是{company}客服中心，请问有什么可以帮您？
您好，我买的{goods}{problem}，应该怎么办？
我想{service}，需要提供哪些材料？
请问您是要{service}还是{service}？
请您报一下订单号，我帮您查询。
我的订单号是{code}，{past}下的单，到现在还没有收到。
您的订单将在{date}{daypart}送达，请保持电话畅通。
很抱歉给您带来不便，我们会在{count}个工作日内为您{service}。
请您提供在{company}注册时使用的手机号码和验证码。
我的手机号码是{phone}。
请拨打{phone}，联系{surname}{title}。
验证码是{code}，请在{count}分钟内输入。
{color}的{goods}多少钱，有没有优惠？
这款{goods}原价{money}，现在只要{money}。
请问这件{color}的{goods}可以{service}吗？
{surname}{title}您好，您的{goods}已经修好了，{future}可以来取。
感谢您的来电，祝您生活愉快，再见。
请问还有其他需要帮助的吗？
系统显示您的账户余额是{money}，请及时充值。
我对你们的服务很不{feeling}，我要投诉。
请稍等，我马上为您转接{dept}。
软件一直提示{problem}，我已经重启了{count}次。
您反映的{problem}的情况，我们已经记录下来了。
快递单号是{code}，预计{future}{daypart}到达{city}。
""",
    "numbers": """
一共是{money}，请问怎么支付？
{goods}{money}，{goods}{money}，合计{money}。
我们公司有{count}名员工，分布在{city}、{city}和{city}。
这个数字是{integer}，不是{integer}。
请把{integer}和{integer}相加，再减去{integer}。
房间号是{code}，密码是{code}。
我的身份证后六位是{code}。
今年的产量是{integer}吨，比去年提高了{percent}。
{company}{year}的利润是{money}，增长{percent}。
这座桥长{integer}米，宽{integer}米，{year}建成。
全程大约{integer}公里，需要{count}个小时。
仓库里还有{count}{count_item}和{count}{count_item}。
我需要{count}{count_item}，请在{future}送到{place}。
第{integer}页第{integer}行有一个错误。
参加考试的人数是{integer}，通过率是{percent}。
他身高一米{integer}，体重{integer}公斤。
{year}{date}，{city}的人口大约是{integer}万。
请记一下，{code}，重复一遍，{code}。
""",
    "time": """
现在是{daypart}{clock}。
现在几点了，会议开始了吗？
今天是{year}{date}，星期几？
我的生日是{date}，你的呢？
{surname}{title}{future}{daypart}{clock}到{place}。
商店{daypart}{clock}开门，{daypart}{clock}关门。
{transport}{daypart}{clock}出发，{daypart}{clock}到达。
从{date}到{date}，{place}暂停开放。
请提前{count}分钟到{place}集合。
我们约在{future}{daypart}{clock}见面，好吗？
合同从{year}{date}开始生效，有效期{count}年。
他{past}{daypart}{clock}就离开了{place}。
还有{count}天就是{festival}了，你打算怎么过？
""",
    "weather": """
{city}{day}{weather}，气温{degrees}到{degrees}。
{day}{city}的天气怎么样？
{day}有{weather}，出门记得带伞。
预计{future}{city}有{weather}，并伴有{wind}。
{city}的{season}很冷，最低气温{degrees}。
{season}是{city}最美的季节，到处都是{plant}。
气象台发布{weather}预警，请市民注意安全。
受{weather}影响，{city}到{city}的航班全部取消。
我喜欢{season}，因为可以{sport}。
{wind}{integer}级，空气湿度{percent}。
外面下着{weather}，路很滑，请小心驾驶。
""",
    "travel": """
我想订一张{future}{daypart}从{city}到{city}的机票。
从{city}到{city}坐{transport}要多长时间？
请问去{place}怎么走？
一直往前走，到{place}向左转，{place}就在{direction}。
{place}在{place}的{direction}，走路大约{count}分钟。
我们打算{future}去{city}旅游，顺便看看{scenery}。
{city}的{scenery}非常有名，每年吸引很多游客。
请问这附近有{place}吗？
我在{city}预订了{count}间客房，住{count}个晚上。
开往{city}的{transport}马上就要出发了，请抓紧时间上车。
去{place}应该坐几路车？
我的护照丢了，请问{country}大使馆在哪里？
{pron}{past}去了{country}，参观了{scenery}和{scenery}。
本次航班飞往{city}，飞行时间大约{count}小时。
{place}到了，请拿好行李，从{direction}的门下车。
门票{money}一张，儿童半价。
{surname}{title}坐{transport}去{city}出差了，{future}才回来。
""",
    "daily": """
我{family}是一名{job}，在{city}工作。
你{family}喜欢{hobby}还是{sport}？
周末我和{family}一起去{place}{sport}。
我的爱好是{hobby}、{sport}和{hobby}。
他从小就想当一名{job}。
晚饭我想吃{food}和{food}，你呢？
请给我一份{food}，再来一杯{food}。
超市里的{food}很新鲜，{food}也不贵。
冰箱里有{food}、{food}、{food}和{food}。
{food}多少钱一斤？
{family}在厨房里做{food}，味道真香。
这家饭店的{food}很好吃，你尝过吗？
{family}送给我一件{color}的{goods}，我非常{feeling}。
听到这个消息，{pron}都很{feeling}。
你为什么这么{feeling}？
这个{goods}又{adj}又{adj}，我很喜欢。
房间里有一张{color}的{goods}和一台{goods}。
请帮我{task}，谢谢。
别忘了{future}{daypart}去{place}{task}。
我家养了{count}只{animal}，{family}每天喂它们。
{place}里新来了一只{animal}，孩子们都很{feeling}。
{animal}和{animal}都是我最喜欢的动物。
院子里种着{plant}、{plant}和{plant}。
{family}正在学习{instrument}，已经学了{count}年。
{family}给我讲了{book}里的故事。
这张桌子是用{material}做的，又{adj}又{adj}。
这个盒子是{shape}的，那个是{shape}的。
{family}常说，做人要{virtue}、{virtue}。
{festival}那天，全家人一起吃{food}。
夜空中可以看到{planet}和{planet}。
你能不能帮我看一下{goods}为什么{problem}？
""",
    "health": """
我{body}疼，还有一点{illness}。
你哪里不舒服，{body}疼吗？
{surname}{title}建议我多休息，少{sport}。
这种{medicine}每天吃{count}次，每次{count}片。
他因为{illness}住院了，{future}才能出院。
请问{medicine}放在什么地方？
如果一直{illness}，请尽快去{place}检查。
{family}{past}{illness}了，现在已经好多了。
坚持{sport}对{body}有好处。
血压是{integer}，心跳每分钟{integer}次。
""",
    "school": """
{subject}考试定在{date}{daypart}{clock}。
我最喜欢的科目是{subject}，其次是{subject}。
{surname}{title}教我们{subject}和{subject}。
这本{book}是从{place}借来的，{future}要还。
请同学们翻到第{integer}页，我们来学习新课。
你的{subject}作业写完了吗？
他的{subject}考了{integer}分，{subject}考了{integer}分。
{country}的首都在哪里，你知道吗？
{country}和{country}的文化有很大差别。
我打算明年去{country}学{subject}。
老师说，{virtue}的人最受欢迎。
{book}的作者是谁？
""",
    "dictation": """
小助手，{device_act}。
请{device_act}。
能不能{device_act}？
提醒我{future}{daypart}{clock}{task}。
给{surname}{title}发一条短信，内容是{future}{daypart}{clock}在{place}见。
帮我记一下，{future}要{task}，还要{task}。
新建一个日程，{date}{daypart}{clock}{verb_meet}{topic}。
查询{future}从{city}到{city}的{transport}票。
备忘录，{family}的电话是{phone}。
把{integer}页的表格发到{dept}的邮箱。
标题是{topic}，正文另起一行。
搜索{city}最好吃的{food}。
""",
    "business": """
{company}与{company}签订了{project}合作协议，金额{money}。
{company}计划在{city}投资{money}，建设{project}基地。
据报道，{country}{past}出口的{goods}下降了{percent}。
{company}的股价{past}上涨{percent}，收于{money}。
我们需要向{country}采购{count}{count_item}。
{dept}招聘{count}名{job}，要求熟悉{project}。
这批{goods}的材料是{material}，每件成本{money}。
为了控制{topic}的费用，{dept}决定减少{count}{count_item}。
新来的{job}叫什么名字，在哪个部门？
{surname}{title}说{goods}、{goods}和{goods}都卖完了。
""",
}

# Every word stands here as often as any other, so that rare ones are learned, too.
DRILLS: tuple[str, ...] = (
    "请跟我读，{any}，{any}，{any}。",
    "{any}、{any}、{any}和{any}都是常用词。",
    "我们来练习两个词，{any}，还有{any}。",
    "下一个词是{any}，不是{any}。",
)
TEMPLATES: tuple[str, ...] = tuple(
    line for block in _TEMPLATES.values() for line in block.split("\n") if line
)
