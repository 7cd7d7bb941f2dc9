"""Addresses and networks as regular expressions (RFC 4291, RFC 4632)."""

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_PIECE = "[0-9a-fA-F]{1,4}"
#: Eight pieces, or fewer around a double colon.
_FORMS = [
    f"(?:{_PIECE}:){{7}}{_PIECE}",
    *(f"{_PIECE}(?::{_PIECE}){{{left - 1}}}::(?:{_PIECE}(?::{_PIECE}){{0,{5 - left}}})?" for left in range(1, 6)),
    f"{_PIECE}(?::{_PIECE}){{5}}::(?:{_PIECE})?",
    f"{_PIECE}(?::{_PIECE}){{6}}::",
    f"::(?:{_PIECE}(?::{_PIECE}){{0,6}})?",
]
IPV6 = f"(?:{'|'.join(_FORMS)})"
_PREFIX4 = "(?:3[0-2]|[12]?[0-9])"
_PREFIX6 = "(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"
INTERFACE4, INTERFACE6 = f"{IPV4}(?:/{_PREFIX4})?", f"{IPV6}(?:/{_PREFIX6})?"


def _network4(prefix: int) -> str:
    """IPv4 networks of a prefix; the bits behind it are 0."""
    whole, left = divmod(prefix, 8)
    parts = [_BYTE] * whole
    if left:
        parts.append(f"(?:{'|'.join(map(str, range(0, 256, 2 ** (8 - left))))})")
    return r"\.".join([*parts, *["0"] * (4 - len(parts))]) + f"/{prefix}"


NETWORK4 = f"(?:{'|'.join(map(_network4, range(33)))})"
#: Those that end between two pieces, and single addresses.
NETWORK6 = f"(?:{'|'.join(f'(?:{_PIECE}:){{{count}}}:/{16 * count}' for count in range(1, 8))}|::/0|{IPV6}/128)"
