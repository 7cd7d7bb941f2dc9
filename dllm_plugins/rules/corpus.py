"""How frequent tokens are in a corpus, from a list or a file."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

#: A frequency of 0 would make a token infinitely surprising.
RAREST = 1e-9
_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    EOFError,
    BadZipFile,
    SafetensorError,
)


def frequencies(corpus: str | tuple[float, ...]) -> Tensor:
    """Frequency of every token id, float64 [V], from numbers or the file that holds them.

    Numbers may be counts: they are divided by their sum. A JSON file holds a list, or an
    object of ids with counts; or PC-Sampler's: `p_baseline_dict`, such an object, and
    `num_token`, the size of its corpus. Ids it leaves out count once. A `.npy`, `.npz` or
    `.safetensors` file holds one array.

    :raises ValueError: if that is not what it holds.
    """
    if not isinstance(corpus, str):
        return _listed(corpus)
    path = Path(corpus).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {corpus}; give the path of one, or a list of frequencies")
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _listed(numbers: tuple[float, ...]) -> Tensor:
    return _normalised(numbers)


@lru_cache(maxsize=8)
def _read(path: Path, _written: int) -> Tensor:
    try:
        if path.suffix == ".json":
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        if path.suffix == ".safetensors":
            (only,) = load_file(path).values()
            return _normalised(only.double().flatten().tolist())
        with path.open("rb") as file:
            loaded = np.load(file)
            array = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
        return _normalised(array.astype(np.float64).ravel().tolist())
    except _DAMAGED as error:
        raise ValueError(f"{path} does not hold token frequencies: {error}") from error


def _from_json(found: object) -> Tensor:
    if isinstance(found, list):
        return _normalised(found)
    if not isinstance(found, dict) or not found:
        raise ValueError("a list of numbers, or an object of ids with counts, is needed")
    counts = found.get("p_baseline_dict", found)
    numbers = {int(token): float(count) for token, count in counts.items()}
    size = float(found.get("num_token", sum(numbers.values())) if counts is not found else sum(numbers.values()))
    if size <= 0 or min(numbers) < 0 or min(numbers.values()) < 0:
        raise ValueError("ids and counts must not be negative, and some count must be above 0")
    table = torch.full((max(numbers) + 1,), 1 / size, dtype=torch.float64)
    table[list(numbers)] = torch.tensor(list(numbers.values()), dtype=torch.float64) / size
    return table


def _normalised(numbers: Sequence[float]) -> Tensor:
    table = torch.tensor(numbers, dtype=torch.float64)
    if table.dim() != 1 or not len(table) or not bool((table >= 0).all()) or not float(table.sum()) > 0:
        raise ValueError("frequencies must be numbers of at least 0, not all of them 0")
    return table / table.sum()


def surprise(table: Tensor, token: Tensor) -> Tensor:
    """-log frequency of tokens, at least 0, float64; ids behind the table's end are the rarest."""
    inside = token.clamp(0, len(table) - 1)
    found = torch.where(token < len(table), table[inside], 0.0)
    return -torch.log(found + RAREST).clamp(max=0.0)
