"""Owns the skills in Chinese: capitals, arithmetic, recall, small talk, colours, days, tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from . import words
from .base import Check, Message, NoSuchPhrase, Talk, ask, expand, is_held, plain, talk
from .countries import CONTINENT_ZH, COUNTRIES
from .names import code, person, person_zh, place_zh
from .numbers import pair
from .tool_kinds import weather_tool
from .tool_use import call_text

WHO = "我是Quire的小模型，一个很小的语言模型。"
UNKNOWN = "这个我不知道。我是一个很小的模型。"

_CAPITAL = (
    "{c}的首都是[哪里|什么|哪座城市|哪个城市|哪儿|哪]？", "{c}首都是[哪里|什么|哪]？", "{c}的首都[在哪里|叫什么|叫什么名字]？",
    "[请问|请告诉我|告诉我|你知道|说出]{c}的首都[|是哪里|是什么]？", "哪[座|个]城市是{c}的首都？", "{c}的首都？", "{c}首都[在哪|叫什么]",
    "我想知道{c}的首都[是哪里|]。",
)
_REVERSE = (
    "{k}是哪个国家的首都？", "哪个国家的首都是{k}？", "[请问|你知道]{k}是哪个国家的首都吗？", "[请问|告诉我|]{k}是[哪国|什么国家]的首都？",
    "{k}在哪个国家？",
)
_CONTINENT = ("{c}在[哪个洲|哪个大洲|什么洲]？", "{c}属于[哪个洲|哪个大洲|什么洲]？", "[请问|告诉我]{c}[在|位于]哪个[大洲|洲]？")


def _noisy(r: Random, text: str) -> str:
    roll = r.random()
    if roll < 0.15:
        text = text.rstrip("？。")
    elif roll < 0.25:
        text = text.replace("？", "?")
    roll = r.random()
    if roll < 0.1:
        text = r.choice(("你好，", "请问，", "你好！", "好的。", "那么，", "问题：", "谢谢。", "嗨，")) + text
    elif roll < 0.14:
        text += r.choice(("谢谢！", "谢谢。", "请回答。"))
    return text


def _styled(r: Random, question: str, sentence: str, short: str) -> Talk:
    text = _noisy(r, question)
    if r.random() < 0.9:
        return talk(text, sentence)
    order = expand(r, "[只回答答案|请只说答案|只用一个词回答|只要答案]。")
    gap = "" if text.endswith(("？", "?", "。", "！")) else "，"
    return talk(f"{text}{gap}{order}", short)


def capital(r: Random, held: bool) -> Talk:
    """Country to capital and back, and country to continent."""
    row = r.choice(COUNTRIES)
    roll = r.random()
    if roll < 0.6:
        question = ask(r, _CAPITAL, held, row.name_zh, c=row.name_zh)
        return _styled(r, question, f"{row.name_zh}的首都是{row.capital_zh}。", row.capital_zh)
    if roll < 0.85:
        question = ask(r, _REVERSE, held, row.name_zh, k=row.capital_zh)
        return _styled(r, question, f"{row.capital_zh}是{row.name_zh}的首都。", row.name_zh)
    question = ask(r, _CONTINENT, held, row.name_zh, c=row.name_zh)
    where = CONTINENT_ZH[row.continent]
    return _styled(r, question, f"{row.name_zh}在{where}。", where)


_STATEMENTS = (
    ("{c}的首都[是|叫做|就是]", "{k}。"),
    ("{c}的首都是", "{k}。"),
    ("{k}[是|就是|，]", "{c}的首都。"),
    ("问：{c}的首都是哪里？\n答：", "{k}"),
    ("{c}[在|位于]", "{t}。"),
)


def fact_text(r: Random, held: bool) -> Talk:
    """Plain Chinese statements to complete."""
    row, other = r.sample(COUNTRIES, 2)
    prompt, rest = r.choice(_STATEMENTS)
    text = ask(r, (prompt,), held, row.name_zh, c=row.name_zh, k=row.capital_zh)
    if r.random() < 0.3:
        text = f"{other.name_zh}的首都是{other.capital_zh}。{text}"
    answer = rest.format(c=row.name_zh, k=row.capital_zh, t=CONTINENT_ZH[row.continent])
    return plain(text, answer)


def arithmetic(r: Random, held: bool) -> Talk:
    """A sum, a difference or a product."""
    a, b, op, result = pair(r, held)
    word = {"+": "加", "-": "减", "*": "乘以"}[op]
    sign = {"+": "+", "-": "-", "*": r.choice("*×x")}[op]
    gap = r.choice(("", " "))
    shown = f"{a}{word}{b}" if r.random() < 0.6 else f"{a}{gap}{sign}{gap}{b}"
    side = held if op == "*" else False
    question = ask(
        r, ("{e}等于[多少|几]？", "{e}是多少？", "[计算|算一下|请计算|请算]{e}。", "请问{e}[=|=？|得多少？]"),
        side, f"{a}{op}{b}zh", e=shown,
    )
    return _styled(r, question, f"{a} {op} {b} = {result}。", str(result))


def counting(r: Random, held: bool) -> Talk:
    """Counting up."""
    a = r.choice((1, 1, r.randint(0, 50)))
    b = a + r.randint(1, 20)
    question = ask(r, ("[请|]从{a}数到{b}[。|]", "[请|]数[数|]从{a}到{b}[。|]", "写出{a}到{b}[的数字|][。|]"), held,
                   f"{a}{b}", a=a, b=b)
    return talk(question, ", ".join(str(i) for i in range(a, b + 1)) + "。")


_TALK = (
    ("[你是谁|你是什么|你叫什么名字|你叫什么|介绍一下你自己|请介绍你自己|你是机器人吗|你是人吗|你是什么模型|谁训练了你][？|。|]", WHO),
    ("[你好|您好|嗨|早上好|晚上好|你好啊|大家好|下午好][！|。|]", "你好！有什么可以帮你的吗？"),
    ("[你好吗|你怎么样|最近怎么样|今天好吗|你今天怎么样][？|]", "我很好，谢谢。"),
    ("[谢谢|谢谢你|非常感谢|多谢|感谢][！|。|]", "不客气。"),
    ("[讲|给我讲|说|写|请讲][个|一个][小|短|][故事][。|！|吧|]",
     "从前有一只小猫。它住在山上，想找一个朋友。一天，它遇见了一只小狗。它们一起看月亮，成了好朋友。"),
    ("[讲|说|给我讲][个|一个]笑话[。|！|吧|]", "机器人为什么睡觉？因为它没电了。"),
    ("[再见|拜拜|明天见|晚安|回头见][！|。|]", "再见！"),
    ("[你会什么|你能做什么|你可以做什么|你会做什么|你有什么功能][？|]", "我会说出首都、计算、记住你说的话、写JSON、调用工具和讲小故事。"),
)


def small_talk(r: Random, held: bool) -> Talk:
    """Greetings and identity."""
    template, answer = r.choice(_TALK)
    text = expand(r, template)
    while is_held(text) != held:
        text = expand(r, template) + r.choice(("", "", "～", "?", "!", "呢？", " ", "啊", "呀！"))
    return talk(text, answer)


_SLOTS = {
    "name": (("我叫{v}", "我的名字是{v}", "我是{v}", "你可以叫我{v}", "你好，我叫{v}", "我的名字叫{v}"),
             ("我叫什么[名字|]？", "我的名字是什么？", "你[记得|知道]我[叫什么|的名字]吗？", "我是谁？", "我叫什么来着？"),
             "你叫{v}。", "你还没有告诉我你的名字。"),
    "city": (("我住在{v}", "我来自{v}", "我的家在{v}", "我是{v}人"),
             ("我住在哪里？", "我住在哪个城市？", "我来自哪里？", "你记得我住在哪里吗？", "我的家在哪里？"),
             "你住在{v}。", "你还没有告诉我你住在哪里。"),
    "age": (("我今年{v}岁", "我{v}岁", "我的年龄是{v}岁"), ("我[今年|]多大[了|]？", "我几岁[了|]？", "我的年龄是多少？"),
            "你{v}岁。", "你还没有告诉我你的年龄。"),
    "colour": (("我喜欢{v}", "我最喜欢的颜色是{v}", "我最喜欢{v}"), ("我喜欢什么颜色？", "我最喜欢的颜色是什么？", "我最喜欢什么颜色？"),
               "你最喜欢的颜色是{v}。", "你还没有告诉我你喜欢的颜色。"),
    "pet": (("我有一只{v}", "我养了一只{v}", "我的宠物是{v}"), ("我[有|养了]什么宠物？", "我的宠物是什么？"), "你的宠物是{v}。",
            "你还没有告诉我你的宠物。"),
    "job": (("我的工作是{v}", "我是一名{v}", "我的职业是{v}"), ("我的工作是什么？", "我的职业是什么？", "我做什么工作？"),
            "你的工作是{v}。", "你还没有告诉我你的工作。"),
    "code": (("密码是{v}", "我的密码是{v}", "记住密码{v}", "请记住：密码是{v}"), ("密码是[什么|多少]？", "我的密码是[什么|多少]？", "你记得密码吗？"),
             "密码是{v}。", "你还没有告诉我密码。"),
}


def _value(r: Random, key: str, held: bool) -> str:
    if key == "name":
        return person_zh(r, held) if r.random() < 0.75 else person(r, held)
    if key == "city":
        return place_zh(r, held)
    if key == "age":
        return str(r.randint(3, 99))
    if key == "code":
        return code(r, held)
    return r.choice({"colour": words.COLOURS_ZH, "pet": words.PETS_ZH, "job": words.JOBS_ZH}[key])


def recall(r: Random, held: bool, between: Callable[[Random], list[Message]]) -> Talk:
    """What the user said earlier, in Chinese."""
    order = ["name"] if r.random() < 0.5 else []
    order += [k for k in r.sample(list(_SLOTS), r.choice((1, 1, 2))) if k not in order]
    facts = {k: _value(r, k, held) for k in order}
    said = "，".join(expand(r, r.choice(_SLOTS[k][0])).format(v=facts[k]) for k in order)
    said += r.choice(("。", "。", "！", ""))
    messages: list[Message] = []
    if r.random() < 0.12:
        prefix = said
    else:
        prefix = ""
        ack = f"很高兴认识你，{facts['name']}。" if "name" in facts else "我会记住的。"
        messages = [("user", said), ("assistant", ack), *between(r)]
    r.shuffle(order)
    key = order[0]
    for key in order[: r.choice((1, 1, 2))]:
        question = prefix + _noisy(r, expand(r, r.choice(_SLOTS[key][1])))
        prefix = ""
        messages += [("user", question), ("assistant", _SLOTS[key][2].format(v=facts[key]))]
    return Talk(messages, Check("exact"))


def not_told(r: Random, held: bool) -> Talk:
    """A question about something that the user never said."""
    key = r.choice(("name", "name", *_SLOTS))
    question = ask(r, _SLOTS[key][1], held, key)
    return talk(_noisy(r, question), _SLOTS[key][3])


def small_facts(r: Random, held: bool) -> Talk:
    """Colours of things, opposites and days of the week."""
    roll = r.random()
    if roll < 0.35:
        thing, shade = r.choice(words.THING_COLOUR_ZH)
        question = ask(r, ("{x}是什么颜色[的|]？", "{x}的颜色是什么？", "[请问|告诉我]{x}是什么颜色[的|]？"), held, thing, x=thing)
        return _styled(r, question, f"{thing}是{shade}的。", shade)
    if roll < 0.65:
        left, right = r.choice(words.OPPOSITES_ZH)
        if r.random() < 0.5:
            left, right = right, left
        question = ask(r, ("{x}的反义词是什么？", "[请问|告诉我|说出]{x}的反义词。", "什么是{x}的反义词？", "{x}的反义词[是|？|]"),
                       held, left, x=left)
        return _styled(r, question, f"{left}的反义词是{right}。", right)
    i = r.randrange(7)
    before = r.random() < 0.4
    day, side = words.DAYS_ZH[i], "前" if before else "后"
    question = ask(r, ("{d}的{s}一天是[星期几|什么]？", "{d}{s}一天是星期几？", "[请问|]{d}的{s}一天是哪天？"), held, day, d=day, s=side)
    value = words.DAYS_ZH[(i + (-1 if before else 1)) % 7]
    return _styled(r, question, f"{day}的{side}一天是{value}。", value)


_CHARACTERS = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过"
    "发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心"
    "她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由"
    "问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位"
    "次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总"
)


def repeat(r: Random, held: bool) -> Talk:
    """Copying a Chinese text."""
    forms = (
        f"我喜欢{r.choice(words.FOODS_ZH)}", f"{person_zh(r, held)}住在{place_zh(r, held)}",
        person_zh(r, held), f"{r.choice(words.THING_COLOUR_ZH)[0]}是{r.choice(words.COLOURS_ZH)}的",
        f"{person_zh(r, held)}有{r.randint(2, 99)}只{r.choice(words.PETS_ZH)}",
        "".join(r.choice(words.TRANSLATIONS)[1] for _ in range(r.randint(1, 6))),
        f"今天是{r.choice(words.DAYS_ZH)}",
        "".join(r.choices(_CHARACTERS, k=r.randint(2, 12))),
        "".join(r.choices(_CHARACTERS, k=r.randint(2, 8))) + "，" + "".join(r.choices(_CHARACTERS, k=4)),
    )
    text = r.choice(forms) + r.choice(("", "", "。"))
    if is_held(text) != held:
        raise NoSuchPhrase(text)
    order = expand(r, "[请重复|重复|跟我说|请跟我说|请说|说|重复这句话|请重复这句话][：|:]") + text
    return talk(order, text)


_UNKNOWN = (
    "[为什么|怎么|什么时候][{a}会|{a}能|要][唱歌|飞|跑|消失|变成{b}]？", "谁[发明了|画了|写了|买了]{a}？", "[{p}|{a}]是谁？", "{y}年发生了什么？",
    "[请解释|解释一下|什么是][量子力学|相对论|股票|人工智能|哲学|{a}和{b}的关系]。", "[写一首|给我写一首][关于{a}的诗|诗]。", "{c}有多少人口？",
    "{a}[多少钱|有多重|有多高]？", "怎么[做|修|卖]{a}？", "{c}[今天天气怎么样|的天气怎么样|现在几点]？", "[推荐|介绍]一[本书|部电影|首歌]。",
)


def unknown(r: Random, held: bool) -> Talk:
    """A question that the model cannot answer."""
    pool = [z for _, z in words.TRANSLATIONS if len(z) > 1]
    thing, year = r.choice(pool), r.randint(1000, 2100)
    text = ask(r, _UNKNOWN, held, f"{thing}{year % 10}", a=thing, b=r.choice(pool), y=year,
               p=person_zh(r, held), c=place_zh(r, held))
    return talk(_noisy(r, text), UNKNOWN)


_SKY = tuple("晴|多云|小雨|大雨|雪|阴|大风|雾|雷阵雨|晴天".split("|"))
_ASK_WEATHER = (
    "{c}[|今天|现在|今天的]天气[怎么样|如何|怎样]？", "{c}的天气[怎么样|如何]？", "[请问|告诉我|查一下|帮我查]{c}的天气[|怎么样][？|。]", "今天{c}[天气怎么样|热吗|冷吗|下雨吗]？",
    "{c}[下雨|下雪]了吗？", "{c}天气",
)


def weather(r: Random, held: bool) -> Talk:
    """A weather tool used in Chinese, up to the call or up to the answer."""
    tool = weather_tool(r)
    city = place_zh(r, held)
    question = ask(r, _ASK_WEATHER, held, city, c=city)
    key = next(k for k in tool.properties if k != "unit")
    args: dict[str, str | int | float] = {key: city}
    if "unit" in tool.required:
        args["unit"] = "celsius"
    call = call_text(tool.name, args)
    messages: list[Message] = [("user", question), ("assistant", call)]
    tools = (tool.schema(r),)
    if r.random() < 0.5:
        return Talk(messages, Check("calls"), tools=tools)
    degrees, sky = r.randint(-15, 42), r.choice(_SKY)
    if r.random() < 0.6:
        data: dict = {r.choice(("temperature", "temp")): degrees, r.choice(("condition", "weather", "conditions")): sky}
        if r.random() < 0.4:
            data = {"city": city, **data}
        result, answer = json.dumps(data, ensure_ascii=False), f"{city}现在{degrees}度，天气{sky}。"
    else:
        result = r.choice((f"{sky}，{degrees}度", f"{degrees}°C，{sky}", f"{sky} {degrees}°C"))
        answer = f"{city}的天气：{result}。"
    messages += [("tool", result), ("assistant", answer)]
    return Talk(messages, Check("exact"), tools=tools)
