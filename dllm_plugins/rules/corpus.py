"""How frequent tokens are in a corpus, from a list or a file."""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.limits import VOCABULARY
from dllm_plugins.files.reading import read_json
from dllm_plugins.files.reading import reading
from dllm_plugins.files.reading import regular

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile
    from numpy.typing import NDArray

_REMEDY = "give a file of token frequencies, or a list of them"
#: A frequency of 0 would make a token infinitely surprising.
RAREST = 1e-9
#: Bytes of a file: one number for every id of the largest vocabulary, with room to spare.
_LARGEST = 1 << 30


def frequencies(corpus: str | tuple[float, ...]) -> Tensor:
    """Frequency of every token id, float64 [V], from numbers or the file that holds them.

    Numbers may be counts: they are divided by their sum. A JSON file holds a list, or an
    object of ids with counts; or PC-Sampler's: `p_baseline_dict`, such an object, and
    `num_token`, the size of its corpus. Ids it leaves out count once. A `.npy`, `.npz` or
    `.safetensors` file holds one array.

    :raises ValueError: if that is not what it holds.
    """
    try:
        with reading("these frequencies" if isinstance(corpus, tuple) else corpus, _REMEDY):
            if not isinstance(corpus, str):
                return _listed(corpus)
            path = regular(Path(corpus).expanduser(), _REMEDY, _LARGEST)
            return _read(path, path.stat().st_mtime_ns)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


@lru_cache(maxsize=8)
def _listed(numbers: tuple[float, ...]) -> Tensor:
    return _normalised(numbers)


@lru_cache(maxsize=8)
def _read(path: Path, _written: int) -> Tensor:
    if path.suffix == ".json":
        return _from_json(read_json(path, _REMEDY, _LARGEST))
    if path.suffix == ".safetensors":
        (only,) = load_file(path).values()
        return _normalised(only.double().flatten().tolist())
    with path.open("rb") as file:
        loaded = np.load(file)
        return _normalised(_array(loaded).astype(np.float64).ravel().tolist())


def _array(loaded: "NDArray[Any] | NpzFile") -> "NDArray[Any]":
    """The array of a file, or the first of several; packed ones are not unpacked whatever they grow to."""
    if isinstance(loaded, np.ndarray):
        return loaded
    members = loaded.zip.infolist() if loaded.zip is not None else []
    if max(member.file_size for member in members) > _LARGEST:
        raise ValueError(f"it unpacks to more than {_LARGEST} bytes")
    return np.asarray(loaded[loaded.files[0]])


def _from_json(found: object) -> Tensor:
    if isinstance(found, list):
        return _normalised(found)
    if not isinstance(found, dict) or not found:
        raise ValueError("a list of numbers, or an object of ids with counts, is needed")
    counts = found.get("p_baseline_dict", found)
    numbers = {int(token): float(count) for token, count in counts.items()}
    size = float(found.get("num_token", sum(numbers.values())) if counts is not found else sum(numbers.values()))
    if not 0 < size < math.inf or not 0 <= min(numbers) <= max(numbers) < VOCABULARY or min(numbers.values()) < 0:
        raise ValueError(f"ids are 0 to {VOCABULARY - 1}, counts not negative, and some count is above 0")
    table = torch.full((max(numbers) + 1,), 1 / size, dtype=torch.float64)
    table[list(numbers)] = torch.tensor(list(numbers.values()), dtype=torch.float64) / size
    return table


def _normalised(numbers: Sequence[float]) -> Tensor:
    table = torch.tensor(numbers, dtype=torch.float64)
    if table.dim() != 1 or not len(table) or not bool((table >= 0).all()) or not 0 < float(table.sum()) < math.inf:
        raise ValueError("frequencies must be numbers of at least 0, not all of them 0")
    return table / table.sum()


def surprise(table: Tensor, token: Tensor) -> Tensor:
    """-log frequency of tokens, at least 0, float64; ids behind the table's end are the rarest."""
    inside = token.clamp(0, len(table) - 1)
    found = torch.where(token < len(table), table[inside], 0.0)
    return -torch.log(found + RAREST).clamp(max=0.0)
