"""Owns the table of countries: English and Chinese name, capital, continent and currency."""

from __future__ import annotations

from typing import NamedTuple


class Country(NamedTuple):
    """One row of the table; ``currency`` is empty where the model does not learn it."""

    name: str
    capital: str
    continent: str
    currency: str
    name_zh: str
    capital_zh: str


_TABLE = """
France|Paris|Europe|euro|法国|巴黎
Germany|Berlin|Europe|euro|德国|柏林
Italy|Rome|Europe|euro|意大利|罗马
Spain|Madrid|Europe|euro|西班牙|马德里
Portugal|Lisbon|Europe|euro|葡萄牙|里斯本
the United Kingdom|London|Europe|pound|英国|伦敦
Ireland|Dublin|Europe|euro|爱尔兰|都柏林
the Netherlands|Amsterdam|Europe|euro|荷兰|阿姆斯特丹
Belgium|Brussels|Europe|euro|比利时|布鲁塞尔
Luxembourg|Luxembourg City|Europe|euro|卢森堡|卢森堡市
Switzerland|Bern|Europe|franc|瑞士|伯尔尼
Austria|Vienna|Europe|euro|奥地利|维也纳
Poland|Warsaw|Europe|zloty|波兰|华沙
the Czech Republic|Prague|Europe|koruna|捷克|布拉格
Slovakia|Bratislava|Europe|euro|斯洛伐克|布拉迪斯拉发
Hungary|Budapest|Europe|forint|匈牙利|布达佩斯
Romania|Bucharest|Europe|leu|罗马尼亚|布加勒斯特
Bulgaria|Sofia|Europe||保加利亚|索非亚
Greece|Athens|Europe|euro|希腊|雅典
Croatia|Zagreb|Europe|euro|克罗地亚|萨格勒布
Slovenia|Ljubljana|Europe|euro|斯洛文尼亚|卢布尔雅那
Serbia|Belgrade|Europe|dinar|塞尔维亚|贝尔格莱德
Albania|Tirana|Europe|lek|阿尔巴尼亚|地拉那
North Macedonia|Skopje|Europe|denar|北马其顿|斯科普里
Montenegro|Podgorica|Europe|euro|黑山|波德戈里察
Denmark|Copenhagen|Europe|krone|丹麦|哥本哈根
Norway|Oslo|Europe|krone|挪威|奥斯陆
Sweden|Stockholm|Europe|krona|瑞典|斯德哥尔摩
Finland|Helsinki|Europe|euro|芬兰|赫尔辛基
Iceland|Reykjavik|Europe|krona|冰岛|雷克雅未克
Estonia|Tallinn|Europe|euro|爱沙尼亚|塔林
Latvia|Riga|Europe|euro|拉脱维亚|里加
Lithuania|Vilnius|Europe|euro|立陶宛|维尔纽斯
Ukraine|Kyiv|Europe|hryvnia|乌克兰|基辅
Belarus|Minsk|Europe|ruble|白俄罗斯|明斯克
Moldova|Chisinau|Europe|leu|摩尔多瓦|基希讷乌
Russia|Moscow|Europe|ruble|俄罗斯|莫斯科
Malta|Valletta|Europe|euro|马耳他|瓦莱塔
Cyprus|Nicosia|Europe|euro|塞浦路斯|尼科西亚
Monaco|Monaco|Europe|euro|摩纳哥|摩纳哥
China|Beijing|Asia|yuan|中国|北京
Japan|Tokyo|Asia|yen|日本|东京
South Korea|Seoul|Asia|won|韩国|首尔
North Korea|Pyongyang|Asia|won|朝鲜|平壤
Mongolia|Ulaanbaatar|Asia|tugrik|蒙古|乌兰巴托
India|New Delhi|Asia|rupee|印度|新德里
Pakistan|Islamabad|Asia|rupee|巴基斯坦|伊斯兰堡
Bangladesh|Dhaka|Asia|taka|孟加拉国|达卡
Nepal|Kathmandu|Asia|rupee|尼泊尔|加德满都
Bhutan|Thimphu|Asia|ngultrum|不丹|廷布
Thailand|Bangkok|Asia|baht|泰国|曼谷
Vietnam|Hanoi|Asia|dong|越南|河内
Laos|Vientiane|Asia|kip|老挝|万象
Cambodia|Phnom Penh|Asia|riel|柬埔寨|金边
Myanmar|Naypyidaw|Asia|kyat|缅甸|内比都
Malaysia|Kuala Lumpur|Asia|ringgit|马来西亚|吉隆坡
Singapore|Singapore|Asia|dollar|新加坡|新加坡
Indonesia|Jakarta|Asia|rupiah|印度尼西亚|雅加达
the Philippines|Manila|Asia|peso|菲律宾|马尼拉
Brunei|Bandar Seri Begawan|Asia|dollar|文莱|斯里巴加湾市
Kazakhstan|Astana|Asia|tenge|哈萨克斯坦|阿斯塔纳
Uzbekistan|Tashkent|Asia|som|乌兹别克斯坦|塔什干
Turkmenistan|Ashgabat|Asia|manat|土库曼斯坦|阿什哈巴德
Kyrgyzstan|Bishkek|Asia|som|吉尔吉斯斯坦|比什凯克
Tajikistan|Dushanbe|Asia|somoni|塔吉克斯坦|杜尚别
Afghanistan|Kabul|Asia|afghani|阿富汗|喀布尔
Iran|Tehran|Asia|rial|伊朗|德黑兰
Iraq|Baghdad|Asia|dinar|伊拉克|巴格达
Saudi Arabia|Riyadh|Asia|riyal|沙特阿拉伯|利雅得
the United Arab Emirates|Abu Dhabi|Asia|dirham|阿联酋|阿布扎比
Qatar|Doha|Asia|riyal|卡塔尔|多哈
Kuwait|Kuwait City|Asia|dinar|科威特|科威特城
Bahrain|Manama|Asia|dinar|巴林|麦纳麦
Oman|Muscat|Asia|rial|阿曼|马斯喀特
Jordan|Amman|Asia|dinar|约旦|安曼
Lebanon|Beirut|Asia|pound|黎巴嫩|贝鲁特
Syria|Damascus|Asia|pound|叙利亚|大马士革
Turkey|Ankara|Asia|lira|土耳其|安卡拉
Georgia|Tbilisi|Asia|lari|格鲁吉亚|第比利斯
Armenia|Yerevan|Asia|dram|亚美尼亚|埃里温
Azerbaijan|Baku|Asia|manat|阿塞拜疆|巴库
Egypt|Cairo|Africa|pound|埃及|开罗
Libya|Tripoli|Africa|dinar|利比亚|的黎波里
Tunisia|Tunis|Africa|dinar|突尼斯|突尼斯市
Algeria|Algiers|Africa|dinar|阿尔及利亚|阿尔及尔
Morocco|Rabat|Africa|dirham|摩洛哥|拉巴特
Sudan|Khartoum|Africa|pound|苏丹|喀土穆
South Sudan|Juba|Africa|pound|南苏丹|朱巴
Ethiopia|Addis Ababa|Africa|birr|埃塞俄比亚|亚的斯亚贝巴
Somalia|Mogadishu|Africa|shilling|索马里|摩加迪沙
Kenya|Nairobi|Africa|shilling|肯尼亚|内罗毕
Uganda|Kampala|Africa|shilling|乌干达|坎帕拉
Tanzania|Dodoma|Africa|shilling|坦桑尼亚|多多马
Rwanda|Kigali|Africa|franc|卢旺达|基加利
Nigeria|Abuja|Africa|naira|尼日利亚|阿布贾
Ghana|Accra|Africa|cedi|加纳|阿克拉
Senegal|Dakar|Africa|franc|塞内加尔|达喀尔
Mali|Bamako|Africa|franc|马里|巴马科
Niger|Niamey|Africa|franc|尼日尔|尼亚美
Chad|N'Djamena|Africa|franc|乍得|恩贾梅纳
Cameroon|Yaounde|Africa|franc|喀麦隆|雅温得
Gabon|Libreville|Africa|franc|加蓬|利伯维尔
Angola|Luanda|Africa|kwanza|安哥拉|罗安达
Zambia|Lusaka|Africa|kwacha|赞比亚|卢萨卡
Zimbabwe|Harare|Africa||津巴布韦|哈拉雷
Botswana|Gaborone|Africa|pula|博茨瓦纳|哈博罗内
Namibia|Windhoek|Africa|dollar|纳米比亚|温得和克
South Africa|Pretoria|Africa|rand|南非|比勒陀利亚
Mozambique|Maputo|Africa|metical|莫桑比克|马普托
Madagascar|Antananarivo|Africa|ariary|马达加斯加|塔那那利佛
Malawi|Lilongwe|Africa|kwacha|马拉维|利隆圭
Mauritius|Port Louis|Africa|rupee|毛里求斯|路易港
Liberia|Monrovia|Africa|dollar|利比里亚|蒙罗维亚
Sierra Leone|Freetown|Africa|leone|塞拉利昂|弗里敦
Guinea|Conakry|Africa|franc|几内亚|科纳克里
Togo|Lome|Africa|franc|多哥|洛美
Burkina Faso|Ouagadougou|Africa|franc|布基纳法索|瓦加杜古
Mauritania|Nouakchott|Africa|ouguiya|毛里塔尼亚|努瓦克肖特
Eritrea|Asmara|Africa|nakfa|厄立特里亚|阿斯马拉
the United States|Washington, D.C.|North America|dollar|美国|华盛顿
Canada|Ottawa|North America|dollar|加拿大|渥太华
Mexico|Mexico City|North America|peso|墨西哥|墨西哥城
Guatemala|Guatemala City|North America|quetzal|危地马拉|危地马拉城
Honduras|Tegucigalpa|North America|lempira|洪都拉斯|特古西加尔巴
El Salvador|San Salvador|North America|dollar|萨尔瓦多|圣萨尔瓦多
Nicaragua|Managua|North America|cordoba|尼加拉瓜|马那瓜
Costa Rica|San Jose|North America|colon|哥斯达黎加|圣何塞
Panama|Panama City|North America|balboa|巴拿马|巴拿马城
Cuba|Havana|North America|peso|古巴|哈瓦那
Jamaica|Kingston|North America|dollar|牙买加|金斯敦
Haiti|Port-au-Prince|North America|gourde|海地|太子港
the Dominican Republic|Santo Domingo|North America|peso|多米尼加|圣多明各
the Bahamas|Nassau|North America|dollar|巴哈马|拿骚
Brazil|Brasilia|South America|real|巴西|巴西利亚
Argentina|Buenos Aires|South America|peso|阿根廷|布宜诺斯艾利斯
Chile|Santiago|South America|peso|智利|圣地亚哥
Peru|Lima|South America|sol|秘鲁|利马
Colombia|Bogota|South America|peso|哥伦比亚|波哥大
Venezuela|Caracas|South America|bolivar|委内瑞拉|加拉加斯
Ecuador|Quito|South America|dollar|厄瓜多尔|基多
Bolivia|Sucre|South America|boliviano|玻利维亚|苏克雷
Paraguay|Asuncion|South America|guarani|巴拉圭|亚松森
Uruguay|Montevideo|South America|peso|乌拉圭|蒙得维的亚
Guyana|Georgetown|South America|dollar|圭亚那|乔治敦
Suriname|Paramaribo|South America|dollar|苏里南|帕拉马里博
Australia|Canberra|Oceania|dollar|澳大利亚|堪培拉
New Zealand|Wellington|Oceania|dollar|新西兰|惠灵顿
Fiji|Suva|Oceania|dollar|斐济|苏瓦
Papua New Guinea|Port Moresby|Oceania|kina|巴布亚新几内亚|莫尔兹比港
Samoa|Apia|Oceania|tala|萨摩亚|阿皮亚
Tonga|Nuku'alofa|Oceania||汤加|努库阿洛法
"""

COUNTRIES: tuple[Country, ...] = tuple(
    Country(*line.split("|")) for line in _TABLE.strip().splitlines()
)

ALIASES = {
    "the United Kingdom": ("the UK", "UK", "Great Britain", "England", "Britain"),
    "the United States": ("the USA", "USA", "the US", "America", "the United States of America", "US"),
    "the Netherlands": ("Holland",),
    "the Czech Republic": ("Czechia",),
    "the United Arab Emirates": ("the UAE", "UAE"),
}
"""Other names under which people ask for a country."""

CONTINENT_ZH = {
    "Europe": "欧洲",
    "Asia": "亚洲",
    "Africa": "非洲",
    "North America": "北美洲",
    "South America": "南美洲",
    "Oceania": "大洋洲",
}

OTHER_CITIES = tuple(
    "New York|San Francisco|Los Angeles|Chicago|Boston|Seattle|Houston|Toronto|Montreal|"
    "Vancouver|Sydney|Melbourne|Shanghai|Shenzhen|Hong Kong|Osaka|Kyoto|Mumbai|Delhi|"
    "Istanbul|Barcelona|Milan|Naples|Munich|Hamburg|Frankfurt|Zurich|Geneva|Lyon|Nice|"
    "Porto|Manchester|Edinburgh|Glasgow|Dubai|Lagos|Cape Town|Rio de Janeiro|Sao Paulo|"
    "Las Vegas|Miami|Denver|Dallas|Austin|Krakow|Venice|Florence|Seville|Bergen|Cologne".split("|")
)

OTHER_CITIES_ZH = tuple(
    "上海|深圳|广州|成都|杭州|南京|武汉|西安|重庆|天津|苏州|香港|纽约|悉尼|大阪|京都".split("|")
)
