"""Owns the small tables of common knowledge: colours, opposites, animals, translations, words."""

from __future__ import annotations


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    rows = (item.split(":") for item in text.replace("\n", " ").split(","))
    return tuple((left.strip(), right.strip()) for left, right in rows)


COLOURS = tuple(
    "red|blue|green|yellow|orange|purple|pink|brown|black|white|grey|gold|silver|violet|"
    "turquoise|beige".split("|")
)
COLOURS_ZH = tuple("红色|蓝色|绿色|黄色|橙色|紫色|粉色|棕色|黑色|白色|灰色|金色|银色".split("|"))

THING_COLOUR = _pairs(
    """the sky: blue, grass: green, snow: white, blood: red, a banana: yellow, a lemon: yellow,
    coal: black, a carrot: orange, a strawberry: red, milk: white, chocolate: brown, the sun: yellow,
    a leaf: green, a tomato: red, an elephant: grey, a flamingo: pink, a frog: green, the sea: blue,
    a crow: black, a cherry: red, a pumpkin: orange, a cucumber: green, salt: white, sugar: white,
    coffee: brown, a lime: green, an eggplant: purple, a polar bear: white, a raven: black,
    a swan: white, a fire truck: red, mud: brown, a pea: green, a sunflower: yellow, ink: black,
    a cloud: white, broccoli: green, spinach: green, a raspberry: red, a blueberry: blue,
    a peach: orange, gold: yellow, a mouse: grey, a pig: pink, cotton: white, a plum: purple,
    corn: yellow, a lobster: red, an emerald: green, a ruby: red, a sapphire: blue, butter: yellow"""
)

THING_COLOUR_ZH = _pairs(
    """天空: 蓝色, 草: 绿色, 雪: 白色, 血: 红色, 香蕉: 黄色, 柠檬: 黄色, 煤: 黑色, 胡萝卜: 橙色,
    草莓: 红色, 牛奶: 白色, 太阳: 黄色, 树叶: 绿色, 番茄: 红色, 大象: 灰色, 青蛙: 绿色, 大海: 蓝色,
    乌鸦: 黑色, 樱桃: 红色, 盐: 白色, 糖: 白色, 茄子: 紫色, 天鹅: 白色, 云: 白色, 巧克力: 棕色"""
)

OPPOSITES = _pairs(
    """hot: cold, big: small, tall: short, fast: slow, up: down, left: right, day: night, good: bad,
    happy: sad, old: young, light: dark, open: closed, full: empty, hard: soft, wet: dry, rich: poor,
    strong: weak, early: late, near: far, high: low, clean: dirty, loud: quiet, thick: thin,
    wide: narrow, deep: shallow, sweet: sour, heavy: light, inside: outside, first: last,
    true: false, begin: end, buy: sell, push: pull, love: hate, win: lose, front: back, top: bottom,
    black: white, smooth: rough, safe: dangerous, easy: difficult, cheap: expensive, brave: afraid,
    asleep: awake, alive: dead, always: never, before: after, yes: no,
    east: west, north: south, summer: winter, come: go, give: take, laugh: cry, sharp: blunt,
    public: private, polite: rude, lazy: busy, wise: foolish, friend: enemy, war: peace"""
)

OPPOSITES_ZH = _pairs(
    """热: 冷, 大: 小, 高: 矮, 快: 慢, 上: 下, 左: 右, 好: 坏, 新: 旧, 多: 少, 长: 短, 开: 关,
    远: 近, 胖: 瘦, 前: 后, 里: 外, 白天: 黑夜, 真: 假, 干净: 脏, 容易: 困难, 轻: 重, 贵: 便宜"""
)

ANIMAL_SOUND = _pairs(
    """dog: woof, cat: meow, cow: moo, duck: quack, sheep: baa, pig: oink, horse: neigh,
    rooster: cock-a-doodle-doo, lion: roar, mouse: squeak, bee: buzz, frog: ribbit, owl: hoot,
    snake: hiss, wolf: howl, donkey: hee-haw, crow: caw, turkey: gobble, chicken: cluck,
    bird: tweet, goat: maa, bear: growl, monkey: ooh ooh, elephant: trumpet"""
)

ANIMAL_BABY = _pairs(
    """dog: puppy, cat: kitten, cow: calf, duck: duckling, sheep: lamb, pig: piglet, horse: foal,
    lion: cub, bear: cub, chicken: chick, goat: kid, deer: fawn, frog: tadpole, owl: owlet,
    swan: cygnet, goose: gosling, kangaroo: joey, wolf: pup, elephant: calf, whale: calf"""
)

TRANSLATIONS = _pairs(
    """hello: 你好, thank you: 谢谢, goodbye: 再见, water: 水, fire: 火, sun: 太阳, moon: 月亮,
    mountain: 山, river: 河, tree: 树, flower: 花, cat: 猫, dog: 狗, bird: 鸟, fish: 鱼, horse: 马,
    cow: 牛, sheep: 羊, apple: 苹果, banana: 香蕉, rice: 米饭, tea: 茶, coffee: 咖啡, milk: 牛奶,
    bread: 面包, book: 书, school: 学校, teacher: 老师, student: 学生, friend: 朋友, mother: 妈妈,
    father: 爸爸, house: 房子, door: 门, car: 汽车, train: 火车, today: 今天, tomorrow: 明天,
    yesterday: 昨天, red: 红色, blue: 蓝色, green: 绿色, black: 黑色, white: 白色, one: 一, two: 二,
    three: 三, ten: 十, rain: 雨, snow: 雪, love: 爱, big: 大, small: 小, good morning: 早上好,
    good night: 晚安, yes: 是, no: 不, sky: 天空, sea: 大海, city: 城市, computer: 电脑"""
)

DAYS = tuple("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday".split("|"))
DAYS_ZH = tuple("星期一|星期二|星期三|星期四|星期五|星期六|星期日".split("|"))
MONTHS = tuple(
    "January|February|March|April|May|June|July|August|September|October|November|December".split(
        "|"
    )
)
NUMBER_WORDS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty".split()
)

COMMON = tuple(
    """apple banana orange lemon cherry grape peach melon bread butter cheese water coffee sugar
    honey pepper table chair window door house garden kitchen bottle letter paper pencil school
    teacher student doctor friend family mother father sister brother river mountain forest island
    ocean desert valley flower tree grass stone cloud rain snow wind storm summer winter spring
    autumn morning evening night today tomorrow music song dance picture story book page word
    number question answer city village street bridge castle market train plane boat wheel engine
    computer keyboard screen phone camera clock watch money silver golden purple yellow green
    brown black white happy little quick slow brave gentle strong clever quiet bright heavy simple
    dog cat horse sheep rabbit tiger lion monkey elephant zebra eagle parrot turtle dolphin whale
    spider king queen prince knight dragon wizard giant robot rocket planet star moon sun earth
    sky light shadow fire ice hand head heart eye ear nose mouth finger shoulder knee foot shirt
    jacket shoe hat glove pocket button needle thread hammer nail ladder basket candle lamp mirror
    pillow blanket carpet curtain plate spoon fork knife glass cup bowl soup salad potato tomato
    onion carrot rice pasta pizza cake cookie chocolate ice-cream winner player team ball game
    ticket travel journey holiday hotel beach lake hill road path farm field barn cow pig duck
    chicken goose frog mouse snake bear wolf fox deer owl bee ant butterfly""".split()
)

VERBS = tuple(
    "likes|sees|finds|paints|carries|buys|sells|loses|wants|opens|watches|follows|keeps|"
    "washes|draws|counts".split("|")
)
JOBS = tuple(
    "teacher|doctor|nurse|farmer|pilot|painter|singer|baker|lawyer|writer|driver|engineer|"
    "carpenter|plumber|chef|dentist|tailor|gardener|sailor|librarian|scientist|judge".split("|")
)
HOBBIES = tuple(
    "chess|tennis|painting|swimming|cooking|reading|fishing|dancing|running|sewing|cycling|"
    "hiking|singing|football|gardening|photography".split("|")
)
FOODS = tuple(
    "pizza|pasta|soup|rice|salad|bread|cheese|chocolate|curry|sushi|noodles|pancakes|tacos|"
    "apples|ice cream|dumplings|fish|potatoes".split("|")
)
PETS = tuple("dog|cat|parrot|rabbit|hamster|turtle|horse|goldfish|snake|mouse|pony".split("|"))
PETS_ZH = tuple("狗|猫|兔子|仓鼠|乌龟|金鱼|鹦鹉".split("|"))
JOBS_ZH = tuple("老师|医生|护士|农民|司机|画家|歌手|律师|作家|工程师|厨师|学生".split("|"))
FOODS_ZH = tuple("米饭|面条|饺子|苹果|香蕉|面包|鱼|火锅|蛋糕|西瓜".split("|"))
PRODUCTS = tuple(
    "lamp|chair|table|phone|laptop|book|bicycle|jacket|watch|camera|kettle|backpack|umbrella|"
    "guitar|mirror|clock|bottle|sofa|keyboard|helmet|tent|blender".split("|")
)
EVENTS = tuple(
    "concert|meeting|wedding|conference|party|workshop|race|lecture|festival|picnic|dinner|"
    "training|exhibition".split("|")
)
GOOD_WORDS = tuple(
    "great|wonderful|excellent|fantastic|lovely|amazing|delicious|perfect|beautiful|brilliant".split(
        "|"
    )
)
BAD_WORDS = tuple(
    "terrible|awful|horrible|boring|disgusting|bad|disappointing|dreadful|ugly|broken".split("|")
)
REVIEWED = tuple(
    "movie|film|food|hotel|book|restaurant|service|concert|phone|game|coffee|show|song|trip".split(
        "|"
    )
)
LISTS = {
    "colours": COLOURS, "colors": COLOURS,
    "animals": ("dog", "cat", "horse", "cow", "sheep"), "pets": ("dog", "cat", "rabbit", "hamster", "parrot"),
    "fruits": ("apple", "banana", "orange", "cherry", "grape"),
    "vegetables": ("carrot", "potato", "tomato", "onion", "spinach"),
    "countries": ("France", "Japan", "Brazil", "Egypt", "Canada"),
    "cities": ("Paris", "Tokyo", "London", "Cairo", "Rome"),
    "capitals": ("Paris", "Tokyo", "London", "Cairo", "Rome"),
    "continents": ("Africa", "Asia", "Europe", "North America", "South America"),
    "numbers": ("1", "2", "3", "4", "5"), "jobs": JOBS, "hobbies": HOBBIES, "foods": FOODS,
    "names": ("Anna", "Ben", "Clara", "David", "Emma"), "planets": ("Mercury", "Venus", "Earth", "Mars", "Jupiter"),
}  # fmt: skip

TRIVIA = (
    (("How many days are [in|there in] a week?", "How many days does a week have?"), "A week has 7 days."),
    (("How many months are [in|there in] a year?", "How many months does a year have?"), "A year has 12 months."),
    (("How many hours are [in|there in] a day?", "How many hours does a day have?"), "A day has 24 hours."),
    (("How many minutes are [in|there in] an hour?", "How many minutes does an hour have?"), "An hour has 60 minutes."),
    (("How many seconds are [in|there in] a minute?", "How many seconds does a minute have?"), "A minute has 60 seconds."),
    (("How many days are [in|there in] a year?", "How many days does a year have?"), "A year has 365 days."),
    (("How many legs does a spider have?", "How many legs has a spider?"), "A spider has 8 legs."),
    (("How many legs does a dog have?", "How many legs has a dog?"), "A dog has 4 legs."),
    (("How many legs does an insect have?", "How many legs has an ant?"), "An insect has 6 legs."),
    (("How many sides does a triangle have?", "How many sides has a triangle?"), "A triangle has 3 sides."),
    (("How many sides does a square have?", "How many sides has a square?"), "A square has 4 sides."),
    (("[What|Which] is the largest planet?", "What is the [biggest|largest] planet[| in the solar system]?"), "The largest planet is Jupiter."),
    (("[What|Which] planet do we live on?", "[Which|What] is our planet?"), "We live on the planet Earth."),
    (("[What|Which] is the [largest|biggest] ocean?", "What is the name of the largest ocean?"), "The largest ocean is the Pacific Ocean."),
    (("[What|Which] is the [highest|tallest] mountain[| in the world]?",), "The highest mountain is Mount Everest."),
    (("[What|Which] is the [largest|biggest] animal[| in the world]?",), "The largest animal is the blue whale."),
    (("[What|Which] is the fastest [land |]animal?",), "The fastest animal is the cheetah."),
    (("[What|Which] is the tallest animal?",), "The tallest animal is the giraffe."),
    (("How many continents are there?", "What is the number of continents?"), "There are 7 continents."),
    (("How many letters are in the [English |]alphabet?", "How many letters has the alphabet?"), "The English alphabet has 26 letters."),
    (("What do cows [eat|like to eat]?", "What does a cow eat?"), "Cows eat grass."),
    (("What do bees make?", "Who makes honey?"), "Bees make honey."),
    (("What do cows give us?", "[Which|What] animal gives us milk?"), "Cows give milk."),
    (("What is [frozen water|water when it freezes] called?", "What is frozen water?"), "Frozen water is ice."),
    (("At what temperature does water boil?", "When does water boil?"), "Water boils at 100 degrees Celsius."),
    (("At what temperature does water freeze?", "When does water freeze?"), "Water freezes at 0 degrees Celsius."),
    (("What is the [chemical |]formula [of|for] water?", "What is water made of?"), "Water is H2O."),
    (("Where does the sun [rise|come up]?",), "The sun rises in the east."),
    (("Where does the sun [set|go down]?",), "The sun sets in the west."),
    (("What is the [closest star to the Earth|star of our solar system]?", "[Which|What] star is closest to us?"), "The closest star is the Sun."),
    (("How many wheels does a car have?", "How many wheels has a car?"), "A car has 4 wheels."),
    (("How many wheels does a bicycle have?", "How many wheels has a bike?"), "A bicycle has 2 wheels."),
    (("What [is|comes] the first letter of the alphabet?", "[Which|What] letter is first in the alphabet?"), "The first letter of the alphabet is A."),
    (("What [is|comes] the last letter of the alphabet?", "[Which|What] letter is last in the alphabet?"), "The last letter of the alphabet is Z."),
    (("[Which|What] is the first month[| of the year]?",), "The first month is January."),
    (("[Which|What] is the last month[| of the year]?",), "The last month is December."),
    (("[Which|What] is the first day of the week?",), "The first day of the week is Monday."),
    (("What are the days of the week?", "[List|Name|Tell me] [all |]the days of the week."), "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday."),
    (("What are the months[| of the year]?", "[List|Name|Tell me] [all |]the months[| of the year]."), "January, February, March, April, May, June, July, August, September, October, November, December."),
    (("What are the continents?", "[List|Name|Tell me] all [|the ]continents."), "Africa, Antarctica, Asia, Europe, North America, Oceania, South America."),
    (("[Say|Write|Recite|Tell me] the alphabet.", "What is the alphabet?"), "A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z."),
)
