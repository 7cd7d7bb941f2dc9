"""How files are damaged: one key of a JSON file, or bytes of any file."""

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

#: Of every kind and size, right ones among them.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 10**6, 10**9, 2**31, 2**63, 10**12, 10**30, -(10**12)),
    *(0.0, 0.5, -1.5, 1e-30, 1e30, 1e308, float("inf"), float("nan")),
    *("", "x", "2", "null", "float32", "../..", "/dev/zero", "\ud800", "a" * 1000),
    *([], [1], [1, 2], ["x"], [None], [[]], {}, {"x": 1}, {"type": "x"}, [10**9] * 3, {"0": {"content": 3}}),
)


def change_key(random: Random, place: Path) -> str:
    """Give one key, at any depth, another value, or take it out."""
    found = json.loads(place.read_text(encoding="utf-8"))
    holder, key = random.choice(_keys(found))
    path = f"{place.name}: {key!r}"
    if random.random() < 0.1:
        del holder[key]
        path += " is gone"
    else:
        holder[key] = random.choice(VALUES)
        path += f" is {str(holder[key])[:60]!r}"
    place.write_text(json.dumps(found), encoding="utf-8")
    return path


def _keys(found: Any) -> list[tuple[Any, Any]]:
    """Every place in nested objects and lists; of long lists and objects the first ones."""
    places: list[tuple[Any, Any]] = []
    level = [found]
    while level:
        inside = level.pop()
        keys: list[Any] = list(inside if isinstance(inside, dict) else range(len(inside)))[:200]
        places += [(inside, key) for key in keys]
        level += [inside[key] for key in keys if isinstance(inside[key], dict | list)]
    return places


def damage_bytes(random: Random, place: Path) -> str:
    """Cut it, overwrite a few bytes, replace it by something else, or nest it deeply."""
    data = bytearray(place.read_bytes())
    how = random.choice(("cut", "bytes", "words", "empty", "json", "deep", "text"))
    if how == "cut":
        data = data[: random.randrange(len(data))]
    elif how == "bytes":
        for _ in range(random.choice((1, 2, 8))):
            data[random.randrange(min(len(data), random.choice((64, 4096, len(data)))))] = random.randrange(256)
    elif how == "words":
        at = random.randrange(max(1, min(len(data), 256) - 8))
        data[at : at + 8] = struct.pack("<Q", random.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1)))
    elif how in ("empty", "text"):
        data = bytearray(b"" if how == "empty" else b"version https://git-lfs.github.com/spec/v1\n")
    elif how == "json":
        data = bytearray(json.dumps(random.choice(VALUES)).encode())
    else:
        data = bytearray(b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
    place.write_bytes(bytes(data))
    return f"{place.name}: {how}"


def damage_header(random: Random, place: Path) -> str:
    """One key of a safetensors file's header, with a length that fits it."""
    data = place.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = place.with_suffix(".json")
    header.write_bytes(data[8 : 8 + size])
    what = change_key(random, header)
    new = header.read_bytes()
    header.unlink()
    place.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + size :])
    return f"header of {place.name}: {what}"
