"""Formats that pydantic gives its types; every text of one is read by each type that has it.

So `base64` holds ASCII letters, which `Base64Str` reads as well as `Base64Bytes`, and `binary` counts bytes as
characters. What depends on more than the text, such as `file-path`, is no format here.
"""

from collections.abc import Mapping

from dllm_plugins.constraints.schemas.network import INTERFACE4
from dllm_plugins.constraints.schemas.network import INTERFACE6
from dllm_plugins.constraints.schemas.network import IPV4
from dllm_plugins.constraints.schemas.network import IPV6
from dllm_plugins.constraints.schemas.network import NETWORK4
from dllm_plugins.constraints.schemas.network import NETWORK6
from dllm_plugins.constraints.schemas.spelled import Format

_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: Ordinary characters of an expression, which none of them opens or closes.
_LITERAL = r"(?:[a-zA-Z0-9 _.,:;=@#%&/<>!~-]|\[[a-zA-Z0-9_]{1,20}\])"


def _class(signs: str) -> str:
    return "[" + "".join(f"\\{sign}" if sign in "-/+" else sign for sign in signs) + "]"


def _base64(two: str) -> str:
    """Encoded ASCII.

    :param two: the last two of the 64 digits.
    """
    digits = _SAFE + two
    # The first bit of each of three bytes, which ASCII leaves 0, is bit 5, 3 and 1 of a digit.
    first, any_ = _class(digits[:32]), _class(digits)
    second = _class("".join(sign for value, sign in enumerate(digits) if not value & 8))
    third = _class("".join(sign for value, sign in enumerate(digits) if not value & 2))
    one = first + _class("".join(digits[value] for value in (0, 16, 32, 48))) + "=="
    both = first + second + _class("".join(digits[value] for value in range(0, 64, 4))) + "="
    return f"(?:{first}{second}{third}{any_})*(?:{one}|{both})?"


PYDANTICS: Mapping[str, Format] = {
    "base64": Format(_base64("+/")),
    "base64url": Format(_base64("-_")),
    "binary": Format(r"[ !#-\[\]-~]*"),
    "color": Format("#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})", 4, 7),
    "fraction": Format("-?[0-9]{1,15}(?:/[1-9][0-9]{0,14})?", 1, 32),
    "ipv4interface": Format(INTERFACE4, 7, 18),
    "ipv4network": Format(NETWORK4, 9, 18),
    "ipv6interface": Format(INTERFACE6, 2, 43),
    "ipv6network": Format(NETWORK6, 4, 43),
    "ipvanyaddress": Format(f"(?:{IPV4}|{IPV6})", 2, 39),
    "ipvanyinterface": Format(f"(?:{INTERFACE4}|{INTERFACE6})", 2, 43),
    "ipvanynetwork": Format(f"(?:{NETWORK4}|{NETWORK6})", 4, 43),
    "path": Format(r"[^\"\\\x00-\x1f]{1,200}", 1, 200),
    "regex": Format(rf"(?:{_LITERAL}[*+?]?){{1,60}}"),
}
