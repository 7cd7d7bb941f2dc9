"""Texts of a format, as regular expressions that are stricter than the standards, so that every validator agrees.

Sources: RFC 3339 (dates, times, durations), RFC 5321 and 1123 (mail addresses, host names), RFC 3986 (URIs),
RFC 9562 (UUIDs), RFC 6901 (JSON pointers).
"""

from collections.abc import Mapping

from dllm_plugins.constraints.schemas.network import IPV4
from dllm_plugins.constraints.schemas.network import IPV6
from dllm_plugins.constraints.schemas.pydantic_formats import PYDANTICS
from dllm_plugins.constraints.schemas.spelled import Format

_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_FOURTH = "(?:0[48]|[2468][048]|[13579][26])"
_LEAP_YEAR = f"(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_N = "[0-9]{1,4}"
_CLOCK = f"T(?:{_N}H(?:{_N}M(?:{_N}S)?)?|{_N}M(?:{_N}S)?|{_N}S)"
_DAYS = f"(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)"
_DURATION = f"P(?:{_DAYS}(?:{_CLOCK})?|{_CLOCK}|{_N}W)"

_LABEL = "[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,19}"
_TOP = "[a-zA-Z]{2,12}"
_DOMAIN = rf"(?:{_LABEL}\.){{1,3}}{_TOP}"
_MAIL = rf"[a-zA-Z0-9_+](?:[.-]?[a-zA-Z0-9_+]){{0,29}}@{_DOMAIN}"

_HEX = "[0-9a-fA-F]"


def _uuid(version: str, variant: str) -> str:
    return f"{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-{variant}{_HEX}{{3}}-{_HEX}{{12}}"


_UNIT = r"(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})"
_TAIL = rf"(?:(?:{_UNIT}|/){{0,60}}(?:\?(?:{_UNIT}|[/?]){{0,40}})?(?:#(?:{_UNIT}|[/?]){{0,20}})?)"
_PORT = "(?::[1-9][0-9]{0,3})?"
_URI = rf"https?://(?:{_DOMAIN}|localhost|{IPV4}){_PORT}(?:/{_TAIL})?"

FORMATS: Mapping[str, Format] = {
    "date": Format(_DATE, 10, 10),
    "time": Format(_TIME, 9, 21),
    "date-time": Format(f"{_DATE}T{_TIME}", 20, 32),
    "duration": Format(_DURATION, 3, 33),
    "email": Format(_MAIL, 6, 250),
    "idn-email": Format(_MAIL, 6, 250),
    "hostname": Format(rf"(?:{_LABEL}\.){{0,3}}{_TOP}", 2, 250),
    "idn-hostname": Format(rf"(?:{_LABEL}\.){{0,3}}{_TOP}", 2, 250),
    "ipv4": Format(IPV4, 7, 15),
    "ipv6": Format(IPV6, 2, 39),
    "uri": Format(_URI, 11, 600),
    "iri": Format(_URI, 11, 600),
    "uri-reference": Format(rf"(?:{_URI}|/(?:{_UNIT}{_TAIL})?)", 1, 600),
    "iri-reference": Format(rf"(?:{_URI}|/(?:{_UNIT}{_TAIL})?)", 1, 600),
    "uuid": Format(_uuid(_HEX, _HEX), 36, 36),
    **{f"uuid{version}": Format(_uuid(str(version), "[89abAB]"), 36, 36) for version in range(1, 9)},
    "json-pointer": Format(r"(?:/(?:[^~/\"\\\x00-\x1f]|~[01])*)*"),
    # What these say of a text cannot be told from it.
    "password": Format(r"[^\"\\\x00-\x1f]*"),
    **PYDANTICS,
}
#: Formats of numbers, from OpenAPI: the least and the largest number, or None.
NUMBERS: Mapping[str, tuple[int, int] | None] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "float": None,
    "double": None,
}
