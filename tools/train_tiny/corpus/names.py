"""Owns the names that skills copy: real and invented people, places, Chinese names and codes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .base import is_held
from .countries import COUNTRIES, OTHER_CITIES, OTHER_CITIES_ZH
from .words import COMMON

REAL = tuple(
    """Alice Bob Carol David Emma Frank Grace Henry Isabel Jack Karen Liam Maria Noah Olivia Peter
    Quinn Rachel Samuel Tina Ursula Victor Wendy Xavier Yara Zoe Adam Anna Ben Bella Chris Clara
    Daniel Diana Edward Elena Felix Fiona George Gina Hannah Hugo Ivan Irene James Julia Kevin Kate
    Leo Lucy Mark Mia Nathan Nina Oscar Paula Paul Rosa Robert Sara Simon Sofia Thomas Tara Umar
    Vera Walter Alia Ahmed Aisha Akira Amir Anya Arjun Astrid Bjorn Carlos Chen Chloe Dmitri Elif
    Fatima Giulia Hans Hiro Ines Ingrid Jamal Jin Juan Kenji Lars Leila Lin Luca Mei Mohammed Nadia
    Nikita Olga Omar Pablo Priya Raj Ravi Sakura Sven Tariq Wei Yusuf Zara John Mary Michael Linda
    William Susan Richard Jessica Joseph Lisa Charles Nancy Matthew Betty Anthony Sandra Donald
    Ashley Steven Kim Andrew Emily Joshua Donna Kenneth Michelle Brian Amanda Ronald Melissa Tim
    Deborah Jason Stephanie Jeff Rebecca Ryan Laura Jacob Helen Gary Sharon Eric Cynthia Jonathan
    Kathleen Larry Amy Justin Angela Scott Shirley Brandon Brenda Frances Pamela Greg Nicole Tom
    Max Sam Ella Ava Eva Ida Ian Jane Joe Judy Lily Luke Molly Ruby Rose Tony Will Zack""".split()
)
_ONSETS = (
    "b c d f g h j k l m n p r s t v w y z br ch cl dr fr gr kh kr ph pl pr sh sk sl st th tr "
    "qu gl sm zh b d k l m n r s t v j"
).split()
_VOWELS = "a e i o u a e i o ai ea ee ei ia ie io oa ou ay y ae".split()
_CODAS = "n r l s m t k x d th nd rt ck sh ng ra na la lin ton bert mira dor vin".split() + [""] * 16
_PLACE_ENDS = "ville burg ton stad polis mar grad ford field haven mouth wick dale port land".split()
_PLACE_STARTS = "New|Port|San|Saint|North|Old|Fort|Los|El|La|Great|East|West|South".split("|")
_PLACE_WORDS = "Town|City|Springs|Beach|Bay|Falls|Hill|Lake|River|Park|Island|Valley".split("|")
_JOINTS = ("'", "-", " de ", " ", "-", " la ")
_SURNAMES_ZH = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
_GIVEN_ZH = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红梅建国文辉力明永健世广志义兴良海山"
    "仁波宁贵福生龙元全胜学祥才发武新利清飞彬富顺信子杰涛昌成康星光天达安岩中茂进林有坚和彪博诚"
    "雪琳雨婷欣怡佳慧梦琪思雅晨晓月心语诗涵"
)


def invented(r: Random) -> str:
    """A name made of syllables."""
    text = "".join(r.choice(_ONSETS) + r.choice(_VOWELS) for _ in range(r.choice((1, 2, 2, 3))))
    if r.random() < 0.25:
        text = r.choice("aeiou") + text
    return (text + r.choice(_CODAS)).capitalize()


def _draw(r: Random, held: bool, make: Callable[[Random], str]) -> str:
    name = make(r)
    while is_held(name) != held:
        name = make(r)
    return name


def person(r: Random, held: bool) -> str:
    """A first name on the wanted side of the split."""
    return _draw(r, held, lambda q: q.choice(REAL) if q.random() < 0.3 else invented(q))


def full_name(r: Random, held: bool) -> str:
    """A first name and an invented family name, both on the wanted side of the split."""
    return f"{person(r, held)} {_draw(r, held, invented)}"


def _invented_place(r: Random) -> str:
    roll = r.random()
    if roll < 0.12:
        return f"{r.choice(_PLACE_STARTS)} {invented(r)}"
    if roll < 0.24:
        return f"{invented(r)} {r.choice(_PLACE_WORDS)}"
    if roll < 0.30:
        return f"{r.choice(COMMON).capitalize()} {r.choice(_PLACE_WORDS)}"
    if roll < 0.34:
        return f"{invented(r)}{r.choice(_JOINTS)}{invented(r)}"
    return invented(r) + (r.choice(_PLACE_ENDS) if roll < 0.65 else "")


def place(r: Random, held: bool) -> str:
    """A city; a real one only on the training side, so that evaluation copies invented ones."""
    roll = r.random()
    if held or roll > 0.5:
        return _draw(r, held, _invented_place)
    return r.choice(COUNTRIES).capital if roll < 0.3 else r.choice(OTHER_CITIES)


def invented_country(r: Random, held: bool) -> str:
    """A country that does not exist."""
    ends = ("", "ia", "land", "stan", "nia")
    return _draw(r, held, lambda q: invented(q) + q.choice(ends))


def person_zh(r: Random, held: bool) -> str:
    """A Chinese name of two or three characters."""
    return _draw(
        r,
        held,
        lambda q: q.choice(_SURNAMES_ZH) + "".join(q.choices(_GIVEN_ZH, k=q.choice((1, 2, 2)))),
    )


def place_zh(r: Random, held: bool) -> str:
    """A city in Chinese, a real one."""
    del held
    return (
        r.choice(COUNTRIES).capital_zh if r.random() < 0.75 else r.choice(OTHER_CITIES_ZH)
    )


def code(r: Random, held: bool) -> str:
    """A number of three to six digits."""
    return _draw(r, held, lambda q: "".join(q.choices("0123456789", k=q.choice((3, 4, 4, 5, 6)))))


def word(r: Random, held: bool) -> str:
    """An invented word in lower case."""
    return _draw(r, held, invented).lower()


def gibberish(r: Random, held: bool) -> str:
    """A short string of letters and digits."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pool = r.choice((letters, letters, letters.upper(), letters + "0123456789"))
    return _draw(r, held, lambda q: "".join(q.choices(pool, k=q.randint(3, 8))))
