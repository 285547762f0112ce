r"""What counts as personal data: one expression and one check a kind, over the bytes of UTF-8.

Expressions are bounded and ASCII, so that they mean the same under every Python, and no text makes them slow. The
kernels give windows that hold every match whole: running an expression there finds what it would find in the text.

Addresses are global by the IANA special-purpose registries as CPython 3.13 reads them (`Lib/ipaddress.py`, 2024-05);
Python's own `is_global` changed between 3.11 and 3.13, so the ranges are written out here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, IPv6Address, IPv6Network

import numpy as np
from numpy.typing import NDArray

#: What `ipaddress` (3.13) calls private, and the shared space that it calls neither; two /32 inside are global again.
NOT_GLOBAL = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4"
)
GLOBAL_AGAIN = (0xC0000009, 0xC000000A)  # 192.0.0.9 and 192.0.0.10, anycast
#: No host's own: multicast, and the relays that 6to4 once had (RFC 7526). `ipaddress` calls both global.
NO_HOST = "192.88.99.0/24 224.0.0.0/4"
#: Inside 2000::/3: protocol assignments with Teredo, documentation, 6to4.
NOT_GLOBAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")))
UNICAST_6 = IPv6Network("2000::/3")

#: Last labels that are no top-level domain (IANA's root, 2025) and that file names end in: image@2x.png.
NO_DOMAIN = frozenset(
    b"png jpg jpeg gif svg webp avif bmp ico tif tiff css js mjs ts jsx tsx json xml html htm php txt pdf csv tsv "
    b"yml yaml toml ini cfg conf log lock gz tgz bz2 xz jar whl egg exe dll deb rpm apk dmg iso woff woff2 ttf otf eot "
    b"mp3 mp4 wav doc docx xls xlsx ppt pptx cpp hpp java kt rb patch diff local localdomain internal lan".split()
)
_COMMON = frozenset(b"com org net edu gov mil info".split())
_TOP = re.compile(rb"(?:[A-Za-z]|[\xc3-\xd5][\x80-\xbf]){2,}|(?i:xn--)[0-9A-Za-z-]{2,}")
#: Who is no person: accounts that version control is reached by.
SERVICES = frozenset({b"git", b"hg", b"svn", b"cvs"})
#: Four numbers behind such a word are a version or a section. In other languages: the commonest words for a version.
_NUMBERED = re.compile(
    rb"(?i)(?:\b(?:v|vers?|versi[^\s.,;]{1,6}|releases?|released|rev|revisions?|builds?|firmware|kernel|linux|patch|updates?|"
    rb"oids?|sec|sections?|chapters?|clauses?|paragraphs?|tables?|figures?|fig|appendix|articles?|annex|rules?|ch)|"
    + "§|版本|版|バージョン|버전|верси[^\\s.,;]{1,4}|wersj[^\\s.,;]{1,4}".encode()
    + rb")[.:]?(?:\s|\xc2\xa0){0,2}$"
)
#: At the beginning of a line: where a number of a section stands.
_LINE_START = re.compile(rb"(?:^|\n)[ \t]*$")
BEFORE = 24  # bytes before a match that its check is given

IPV4 = re.compile(
    rb"(?<![0-9A-Za-z_])(?<![0-9A-Za-z]\.)(?<![A-Za-z]-)(?<![=<>!~]=)"
    rb"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    rb"(?![0-9A-Za-z_+~])(?!\.[0-9])(?!-[A-Za-z])(?!-[0-9]+(?![0-9.]))"
    rb"(?!\.(?:tar|tgz|zip|gz|bz2|xz|jar|whl|exe|dll|deb|rpm|dmg|msi|apk|so)(?![a-z]))"
)
IPV6 = re.compile(
    rb"(?<![0-9A-Za-z:.])[23][0-9A-Fa-f]{3}(?:(?:::?[0-9A-Fa-f]{1,4}){1,7}(?:::)?|::)(?![0-9A-Za-z:])(?!\.[0-9])"
)
#: The country codes in use (ITU-T E.164, 2016-12 list).
_COUNTRY = (
    rb"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    rb"|(?:2[1-689]|3[578]|42|5[09]|6[7-9]|8[05-8]|9[679])[0-9])"
)
#: E.164 behind + or 00; North America with its area code; France in pairs (no hex dump); the United Kingdom.
PHONE = re.compile(
    rb"(?<![0-9A-Za-z+.\-/])(?<![0-9]\()(?:"
    rb"\+" + _COUNTRY + rb"[ .-]?(?:\(0?[0-9]{1,4}\)[ .-]?)?[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){1,5}"
    rb"|00 ?" + _COUNTRY + rb"[ .-](?:\(0\)[ .-]?)?[1-9][0-9]{0,3}(?:[ .-]?[0-9]{2,4}){1,5}"
    rb"|(?:1[ .-])?\([2-9][0-8][0-9]\) ?[2-9][0-9]{2}[ .-][0-9]{4}"
    rb"|(?:1[ .-])?[2-9][0-8][0-9]([.-])[2-9][0-9]{2}\1[0-9]{4}"
    rb"|(?<![0-9][0-9A-Fa-f] )(?<![A-Fa-f][0-9] )0[1-9]([ .-])[0-9]{2}(?:\2[0-9]{2}){3}"
    rb"(?! [0-9A-Fa-f]{2}(?![0-9A-Za-z]))"
    rb"|0[1-9][0-9]{3} [0-9]{6}|01[0-9]{2} [0-9]{3} [0-9]{4}|02[0-9] [0-9]{4} [0-9]{4}"
    rb")(?![0-9A-Za-z])(?![.\-/][0-9])"
)
US_SSN = re.compile(
    rb"(?<![0-9A-Za-z.\-/])(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9A-Za-z])(?![.\-/][0-9])"
)
CREDIT_CARD = re.compile(
    rb"(?<![0-9A-Za-z.\-/])(?:3[47][0-9]{2}([ -]?)[0-9]{6}\1[0-9]{5}"
    rb"|(?:4[0-9]{3}|5[1-5][0-9]{2}|2[2-7][0-9]{2}|6(?:011|4[4-9][0-9]|5[0-9]{2})|35[2-8][0-9])"
    rb"(?:([ -])[0-9]{4}\2[0-9]{4}\2[0-9]{4}|[0-9]{12}(?:[0-9]{3})?)"
    rb"|3(?:0[0-5]|[68][0-9])[0-9]([ -]?)[0-9]{6}\3[0-9]{4})(?![0-9A-Za-z])(?![.\-/][0-9])"
)
IBAN = re.compile(
    rb"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?:[0-9A-Z]{11,30}|(?: [0-9A-Z]{4}){2,7}(?: [0-9A-Z]{1,3})?)(?![0-9A-Za-z])"
)
#: Shapes that their issuers publish: a prefix, an alphabet, a length.
KEY = re.compile(
    rb"(?<![0-9A-Za-z])(?:"
    rb"(?:AKIA|ASIA)[A-Z2-7]{16}"  # AWS access key
    rb"|gh[pousr]_[0-9A-Za-z]{36,251}|github_pat_[0-9A-Za-z]{22}_[0-9A-Za-z]{59}"
    rb"|glpat-[0-9A-Za-z_-]{20,64}"  # GitLab
    rb"|xox[abeoprs]-[0-9A-Za-z-]{15,250}"  # Slack
    rb"|[rs]k_(?:live|test)_[0-9A-Za-z]{16,247}"  # Stripe
    rb"|AIza[0-9A-Za-z_-]{35}"  # Google
    rb"|sk-ant-[0-9a-z]{2,10}-[0-9A-Za-z_-]{80,120}"  # Anthropic
    rb"|sk-(?:proj-|svcacct-|admin-)?[0-9A-Za-z_-]{20,100}T3BlbkFJ[0-9A-Za-z_-]{20,100}"  # OpenAI
    rb"|hf_[A-Za-z]{34}|npm_[0-9A-Za-z]{36}|pypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{50,200}"
    rb"|SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}"  # SendGrid
    rb"|eyJ[0-9A-Za-z_-]{10,2000}\.eyJ[0-9A-Za-z_-]{10,8000}\.[0-9A-Za-z_-]{20,2000}"  # a signed JSON web token
    rb")(?![0-9A-Za-z_-])"
)
PRIVATE_KEY = re.compile(
    rb"-----BEGIN ([0-9A-Z ]{0,32})PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S]){1,16000}"
    rb"-----END \1PRIVATE KEY(?: BLOCK)?-----"
)
#: Characters of an account number by country (SWIFT's IBAN registry, release 99, December 2024).
IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
#: Numbers that were printed on cards and leaflets, and are nobody's.
_PRINTED_SSN = frozenset({b"078051120", b"219099999", b"123456789", b"457555462"})


def ranges(networks: str) -> NDArray[np.int64]:
    """Lay networks out as (n, 2) first and last address, rising."""
    nets = sorted(map(IPv4Network, networks.split()))
    return np.array([[int(net.network_address), int(net.broadcast_address)] for net in nets], np.int64)


_RANGES = ranges(NOT_GLOBAL)
_FIRST, _LAST = _RANGES.T.tolist()
_NO_HOST = ranges(NO_HOST).tolist()


def global_ipv4(addresses: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which addresses are global as `ipaddress` (3.13) says; -1 is none."""
    place = np.searchsorted(_RANGES[:, 0], addresses, side="right") - 1
    special = (addresses <= _RANGES[place, 1]) & ~np.isin(addresses, GLOBAL_AGAIN)
    return np.asarray((addresses >= 0) & ~special)


def _of_a_host(address: int) -> bool:
    """Say whether one address is global, and not of a group."""
    special = address <= _LAST[bisect_right(_FIRST, address) - 1]
    return not special and not any(first <= address <= last for first, last in _NO_HOST)


def is_host(match: bytes, before: bytes, after: bytes) -> bool:
    """Say whether four numbers are a global address of some host, and no version or section."""
    numbers = bytes(map(int, match.split(b".")))
    if not _of_a_host(int.from_bytes(numbers, "big")):
        return False
    # 2.5.4.3 and 2.5.29.17 are names in certificates (X.520), 1.3.6.1 begins those of SNMP.
    if match.startswith((b"2.5.4.", b"2.5.29.")) or match == b"1.3.6.1" or _NUMBERED.search(before):
        return False
    # "4.7.5.1. Stream events", "22.1.4.2 Return types": headings; a line of a hosts file has larger numbers.
    heading = after.startswith((b". ", b".\xc2\xa0")) or (after[:1] == b" " and max(numbers) < 32)
    return not (heading and _LINE_START.search(before))


def is_host6(match: bytes, before: bytes, after: bytes) -> bool:
    """Say whether it is a global IPv6 address: in 2000::/3, outside what is reserved there."""
    try:
        address = IPv6Address(match.decode())
    except AddressValueError:
        return False
    return address in UNICAST_6 and not any(address in net for net in NOT_GLOBAL_6)


def email_end(match: bytes, before: bytes, after: bytes) -> int:
    """Say how long the address is: up to the last label that can be a top-level domain; 0, it is none."""
    name, _, domain = match.partition(b"@")
    if len(name) > 64 or (name in SERVICES and (after[:1] in b":/" or before.endswith(b"://"))):
        return 0
    end = len(match)
    while not _TOP.fullmatch(top := domain[domain.rfind(b".") + 1 :]):
        end -= len(top) + 1
        domain = domain[: -len(top) - 1]
        if not domain:
            return 0
    # x@y.sum(): a product of matrices
    called = end == len(match) and after[:1] == b"(" and top.lower() not in _COMMON
    return 0 if b"." not in domain or called or top.lower() in NO_DOMAIN else end


def is_phone(match: bytes, before: bytes, after: bytes) -> bool:
    """Say whether it has as many digits as a number has: up to 15 behind the prefix (E.164), 8 or more.

    Eleven or more where nothing separates them: +2147483647 is the largest int32.
    """
    digits = digits_of(match)
    if match[:1] == b"+":
        return (11 if len(digits) + 1 == len(match) else 8) <= len(digits) <= 15
    return (not match.startswith(b"00") or 10 <= len(digits) <= 17) and not digits.endswith(b"000000")


def digits_of(match: bytes) -> bytes:
    """Leave the digits."""
    return match.translate(None, b" .-()+/")


def is_ssn(match: bytes, before: bytes, after: bytes) -> bool:
    """Say whether a social security number may be somebody's."""
    return digits_of(match) not in _PRINTED_SSN


def is_card(match: bytes, before: bytes, after: bytes) -> bool:
    """Check a card number by Luhn's sum (ISO/IEC 7812-1)."""
    digits = [mark - 48 for mark in digits_of(match)][::-1]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def iban_end(match: bytes, before: bytes, after: bytes) -> int:
    """Say how long the account number is, by its country and its check digits (ISO 13616, ISO 7064); 0, it is none."""
    wanted, seen = IBAN_LENGTHS.get(match[:2].decode(), 0), 0
    for end, mark in enumerate(match, 1):
        seen += mark != 0x20
        if seen == wanted:
            following = match[end : end + 1] or after[:1]
            turned = match[4:end].replace(b" ", b"") + match[:4]
            valid = int("".join(str(int(chr(mark), 36)) for mark in turned)) % 97 == 1
            return end if valid and not (following.isalnum() and following.isascii()) else 0
    return 0


@dataclass(frozen=True)
class Rule:
    """How one form of a kind is found: where to look, what it looks like, whether it is one.

    The check gets (match, up to 24 bytes before it, up to four behind) and gives whether it is one, or how much of it.
    """

    scan: str
    pattern: re.Pattern[bytes] | None  # None: what the scan finds is the match
    check: Callable[[bytes, bytes, bytes], int] | None = None


#: The kinds, in the order in which they take text that two of them want.
RULES: dict[str, tuple[Rule, ...]] = {
    "private_key": (Rule("pem", PRIVATE_KEY),),
    "key": (Rule("token", KEY),),
    "email": (Rule("email", None, email_end),),
    "iban": (Rule("iban", IBAN, iban_end),),
    "credit_card": (Rule("number", CREDIT_CARD, is_card),),
    "us_ssn": (Rule("number", US_SSN, is_ssn),),
    "phone": (Rule("number", PHONE, is_phone),),
    "ip": (Rule("ipv4", IPV4, is_host), Rule("ipv6", IPV6, is_host6)),
}
