"""What every comparison with another project is made of.

A module of this folder lists its comparisons in `PEERS`. Each builds a :class:`Contest`: our
engine and the other project over the same weights, the same prompt and the same algorithm.
Loading happens in `build`; only the two callables of the contest are timed.
"""

import re
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Self

import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from peers.models import BLOCK


class Skip(Exception):
    """Raised when a comparison cannot be made here; the text says what to install or fetch."""


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of the prompt and new tokens."""

    prompt: int
    new: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the name of a size, as in `p256n128`.

        :raises ValueError: for anything else.
        """
        found = re.fullmatch(r"p([1-9]\d*)n([1-9]\d*)", text)
        if found is None:
            raise ValueError(f"size {text!r} is not of the form p256n128: prompt tokens, then new tokens")
        return cls(int(found[1]), int(found[2]))

    @property
    def blocks(self) -> int:
        """Blocks of the answer."""
        return -(-self.new // BLOCK)

    @property
    def steps(self) -> int:
        """Denoising passes: two tokens each, as many in every block."""
        return self.blocks * BLOCK // 2

    def __str__(self) -> str:
        return f"p{self.prompt}n{self.new}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one call of a sampler gave.

    :param tokens: the new ids, without the prompt.
    :param passes: forwards of the model, all kinds.
    :param rows: positions that those forwards computed.
    """

    tokens: tuple[int, ...]
    passes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Contest:
    """Both sides over the same weights, loaded and ready.

    :param ours: our engine, from the prompt to the new tokens.
    :param theirs: the other project's sampler, likewise.
    :param weights: parameters of the model.
    :param setting: the options both sides use, in words (block length, rule, cache).
    :param note: in what the two differ by design, empty if in nothing.
    """

    ours: Callable[[], Decoded]
    theirs: Callable[[], Decoded]
    weights: int
    setting: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a comparison is built from.

    :param size: of the prompt and the answer.
    :param dtype: of the weights and the products, on both sides.
    :param folder: an empty folder for the random checkpoint; removed after the comparison.
    :param checkout: of the other project; None for those that pip installs.
    """

    size: Size
    dtype: torch.dtype
    folder: Path
    checkout: Path | None = None

    @property
    def dtype_name(self) -> str:
        """As `load_model` takes it: `bfloat16` or `float32`."""
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Peer:
    """One comparison.

    :param name: of its rows, before the size.
    :param checkout: the option of `run.py` that names the other project's checkout, without
        dashes (`zhz`); None if the project comes from pip.
    :param build: loads both sides.
        It raises :class:`Skip` if something is missing.
    """

    name: str
    checkout: str | None
    build: Callable[[Setup], Contest]


class Counted:
    """Counts the forwards of a model that is called with token ids, and the positions they compute."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.passes = self.rows = 0
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = given[0] if given else named["input_ids"]
        self.passes += 1
        self.rows += ids.numel()

    def reset(self) -> None:
        """Begin again, before each call of a sampler."""
        self.passes = self.rows = 0


def prompt_ids(length: int, vocabulary: int, seed: int = 0) -> list[int]:
    """Drawn ids, none of the first 100 and none at or above `vocabulary`: leave special ids out of that."""
    drawn = torch.randint(100, vocabulary, (length,), generator=torch.Generator().manual_seed(seed))
    found: list[int] = drawn.tolist()
    return found


def sampled(model: torch.nn.Module, sample: Callable[[], Any], prompt: int) -> Callable[[], Decoded]:
    """Their side.

    :param sample: calls the sampler; returns ids [1, prompt + new].
    """
    counted = Counted(model)

    def call() -> Decoded:
        counted.reset()
        with torch.inference_mode():
            ids = sample()
        return Decoded(tuple(ids[0, prompt:].tolist()), counted.passes, counted.rows)

    return call


def weights_of(model: torch.nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(weight.numel() for weight in model.parameters())


def decode(model: Model, prompt: Sequence[int], config: SamplingConfig, stop_ids: frozenset[int] | None) -> Decoded:
    """Our side: one request on a new engine; `stop_ids` as in :class:`~dllm_plugins.request.Request`."""
    finish = model.engine().generate([Request(prompt, config, stop_ids=stop_ids)])[0]
    return Decoded(finish.tokens, finish.usage.total_passes, finish.usage.rows)
