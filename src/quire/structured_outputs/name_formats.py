"""Formats of identifiers and addresses, as pydantic names them, as patterns. Knows no schemas.
Networks have no host bits; IPv6 networks only prefix lengths that are multiples of 16.
"""

from __future__ import annotations


def _uuid(version: str) -> str:
    hex = "[0-9a-fA-F]"
    return f"{hex}{{8}}-{hex}{{4}}-{version}{hex}{{3}}-[89abAB]{hex}{{3}}-{hex}{{12}}"


_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9a-fA-F]{1,4}"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"


def _groups(most: int) -> str:
    """Up to ``most`` groups of an IPv6 address."""
    return f"(?:{_GROUP}(?::{_GROUP}){{0,{most - 1}}})?" if most else ""


def _ipv6() -> str:
    """All groups, or some before and some after the gap ``::``."""
    gapped = (
        f"(?:{_GROUP}:){{{before}}}:{_groups(7 - before)}" if before else f"::{_groups(7)}"
        for before in range(8)
    )
    return "|".join((f"(?:{_GROUP}:){{7}}{_GROUP}", *gapped))


def _ipv4_network() -> str:
    """Networks of each prefix length: the octet in which the prefix ends is a multiple."""
    networks = [r"0\.0\.0\.0/0"]
    for length in range(1, 33):
        whole, rest = divmod(length - 1, 8)
        multiples = "|".join(map(str, range(0, 256, 1 << (7 - rest)))) if rest < 7 else _OCTET
        networks.append(rf"(?:{_OCTET}\.){{{whole}}}(?:{multiples})(?:\.0){{{3 - whole}}}/{length}")
    return "|".join(networks)


def _ipv6_network() -> str:
    gapped = (f"(?:{_GROUP}:){{{groups}}}:/{16 * groups}" for groups in range(1, 8))
    return "|".join(("::/0", *gapped, f"(?:{_GROUP}:){{7}}{_GROUP}/128"))


_IPV4_INTERFACE = f"{_IPV4}/(?:3[0-2]|[12]?[0-9])"
_IPV6_INTERFACE = f"(?:{_ipv6()})/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"

_BODIES = {
    **{f"uuid{version}": _uuid(str(version)) for version in range(1, 9)},
    "ipvanyaddress": f"{_IPV4}|{_ipv6()}",
    "ipv4network": _ipv4_network(),
    "ipv6network": _ipv6_network(),
    "ipvanynetwork": f"{_ipv4_network()}|{_ipv6_network()}",
    "ipv4interface": _IPV4_INTERFACE,
    "ipv6interface": _IPV6_INTERFACE,
    "ipvanyinterface": f"{_IPV4_INTERFACE}|{_IPV6_INTERFACE}",
}
NAME_PATTERNS = {name: f"^(?:{body})$" for name, body in _BODIES.items()}
ANY_UUID = f"^{_uuid('[1-8]')}$"
