"""Pydantic's own types in `with_structured_output`: whatever a schema allows, the class reads back."""

from collections import Counter
from collections import deque
from datetime import date
from datetime import datetime
from datetime import time
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address
from ipaddress import IPv4Interface
from ipaddress import IPv4Network
from ipaddress import IPv6Address
from ipaddress import IPv6Interface
from ipaddress import IPv6Network
from pathlib import Path
from re import Pattern
from typing import Annotated
from typing import Any
from typing import Literal
from uuid import UUID

import pydantic as p
import pytest

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.errors import OptionError
from langchain_dllm.schemas import schema_of

from ..constraints.members import members


class Colour(Enum):
    red = "r"
    blue = "b"


class Cat(p.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(p.BaseModel):
    kind: Literal["dog"]
    good: bool


#: Types, and what they cost to read: most have a class of their own.
TYPES: dict[str, Any] = {
    "AnyUrl": p.AnyUrl,
    "AwareDatetime": p.AwareDatetime,
    "Base64Bytes": p.Base64Bytes,
    "Base64Str": p.Base64Str,
    "Base64UrlBytes": p.Base64UrlBytes,
    "Base64UrlStr": p.Base64UrlStr,
    "Counter": Counter[str],
    "Decimal": Decimal,
    "Decimal of digits": Annotated[Decimal, p.Field(max_digits=5, decimal_places=2)],
    "Decimal of a fraction": Annotated[Decimal, p.Field(ge=0, max_digits=2, decimal_places=2)],
    "Decimal within": Annotated[Decimal, p.Field(ge=0, le=10)],
    "FileUrl": p.FileUrl,
    "Fraction": Fraction,
    "FutureDate": p.FutureDate,
    "HttpUrl": p.HttpUrl,
    "IPv4Address": IPv4Address,
    "IPv4Interface": IPv4Interface,
    "IPv4Network": IPv4Network,
    "IPv6Address": IPv6Address,
    "IPv6Interface": IPv6Interface,
    "IPv6Network": IPv6Network,
    "IPvAnyAddress": p.IPvAnyAddress,
    "IPvAnyInterface": p.IPvAnyInterface,
    "IPvAnyNetwork": p.IPvAnyNetwork,
    "NaiveDatetime": p.NaiveDatetime,
    "PastDate": p.PastDate,
    "PastDatetime": p.PastDatetime,
    "Path": Path,
    "Pattern": Pattern[str],
    "PostgresDsn": p.PostgresDsn,
    "SecretBytes": p.SecretBytes,
    "SecretStr": p.SecretStr,
    "UUID": UUID,
    "WebsocketUrl": p.WebsocketUrl,
    "bytes": bytes,
    "bytes of a length": Annotated[bytes, p.Field(min_length=2, max_length=4)],
    "complex": complex,
    "conlist": Annotated[list[int], p.Field(min_length=1, max_length=3)],
    "date since": Annotated[date, p.Field(ge=date(2020, 5, 1), lt=date(2031, 1, 1))],
    "datetime": datetime,
    "deque": deque[int],
    "dict by dates": dict[date, int],
    "enum": Colour,
    "frozenset": frozenset[str],
    "literal": Literal["a", 1, None],
    "one of two": Annotated[Cat | Dog, p.Field(discriminator="kind")],
    "set": Annotated[set[int], p.Field(min_length=1)],
    "time": time,
    "timedelta": timedelta,
    "tuple": tuple[int, str],
}


@pytest.mark.parametrize("name", TYPES)
def test_every_text_of_its_schema_is_read(name: str) -> None:
    """At random, and more than a few of them."""
    wanted = p.create_model("Wanted", value=(TYPES[name], ...))
    texts = members(language_of(JsonSchema(schema_of(wanted))), seed=1, count=40, longest=40)
    for text in texts:
        wanted.model_validate_json(text)
    assert len({*texts}) > 1


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("IPv4Network", ["10.0.0.0/8", "172.16.0.0/12", "1.2.3.4/32", "0.0.0.0/0"], ["10.1.0.0/8", "1.2.3.4/33"]),
        ("IPv6Network", ["2001:db8::/32", "::/0", "::1/128"], ["2001:db8::/16"]),
        ("Base64Str", ["", "YQ==", "YWI=", "YWJj", "YWJjZA=="], ["Y", "YR==", "/w=="]),
        ("Base64UrlStr", ["Pz8_", "fn5-"], ["Pz8/"]),
        ("Decimal of digits", ["0", "-123.45", "999", "0.5"], ["1234", "1.234", "01"]),
        ("Decimal of a fraction", ["0.25", "0.5"], ["-0.25", "1.5", "0"]),
        ("date since", ["2021-02-28", "2030-12-01"], ["2019-01-01", "2031-01-01"]),
        ("PastDate", ["1999-12-01"], ["2999-12-01"]),
        ("NaiveDatetime", ["2024-02-03T04:05:06"], ["2024-02-03T04:05:06Z"]),
        ("PostgresDsn", ["postgresql://me:secret@localhost:5432/db"], ["mysql://localhost/db"]),
        ("complex", ["1+2j", "-0.5-1.25j"], ["1"]),
    ],
)
def test_what_a_schema_allows(name: str, allowed: list[str], refused: list[str]) -> None:
    """What is narrowed is not emptied."""
    wanted = p.create_model("Wanted", value=(TYPES[name], ...))
    language = build(language_of(JsonSchema(schema_of(wanted))))
    for text in [*allowed, *refused]:
        assert language.accepts(f'{{"value": "{text}"}}'.encode()) == (text in allowed), text


@pytest.mark.parametrize("kind", [p.FilePath, p.DirectoryPath, p.Json[int], Annotated[set[int], p.Field(min_length=2)]])
def test_what_depends_on_more_than_the_text_is_refused(kind: Any) -> None:
    """Whether a file exists, what a text encodes, whether elements differ: by the keyword's name."""
    wanted = p.create_model("Wanted", value=(kind, ...))
    with pytest.raises(OptionError, match=r"keyword '(format|contentMediaType|uniqueItems)' at #/properties/"):
        language_of(JsonSchema(schema_of(wanted)))
