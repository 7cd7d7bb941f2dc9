"""Many canvases at once: their noise, what rules remember of them, and which of them are alike."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import is_dataclass
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.noise import Key
from dllm_plugins.noise import RowNoise


class Crowd:
    """Noise of many rows, drawn together.

    :param streams: which of `count` streams each row sees; all others' are independent of it.
    """

    def __init__(self, seed: int, streams: Sequence[int], count: int) -> None:
        members = [_Member(self, index) for index in range(count)]
        self.rows: tuple[RowNoise, ...] = tuple(members[stream] for stream in streams)
        self.drawn = False
        self._count = count
        self._noise = RowNoise(seed)
        self._numbers: dict[tuple[Key, int], tuple[Tensor, ...]] = {}

    def uniform(self, key: Key, count: int) -> tuple[Tensor, ...]:
        """`count` numbers of every stream."""
        self.drawn = True
        if (key, count) not in self._numbers:
            found = self._noise.uniform(key, count * self._count)
            self._numbers[key, count] = found.reshape(-1, count).unbind()
        return self._numbers[key, count]


class _Member(RowNoise):
    """One stream of a crowd."""

    def __init__(self, crowd: Crowd, index: int) -> None:
        super().__init__(index)
        self._crowd = crowd

    def uniform(self, key: Key, count: int) -> Tensor:
        """See :class:`~dllm_plugins.noise.RowNoise`."""
        return self._crowd.uniform(key, count)[self.seed]


@dataclass(frozen=True)
class Canvases:
    """Canvases that stand at the same pass.

    :param canvas: int64 [R, B]; V where open.
    :param weight: float64 [R], how probable each is.
    :param state: what the rule remembers of them: None, or tensors with R rows, however nested.
    """

    canvas: Tensor
    weight: Tensor
    state: Any = None

    def take(self, index: Tensor) -> "Canvases":
        """Some of them, some perhaps more than once."""
        return Canvases(self.canvas[index], self.weight[index], mapped(lambda leaf: leaf[index], self.state))


def mapped(change: Callable[..., Tensor], state: Any, *others: Any) -> Any:
    """Apply `change` to the tensors of nested states of one shape."""
    if isinstance(state, Tensor):
        return change(state, *others)
    if isinstance(state, dict):
        return {key: mapped(change, value, *(other[key] for other in others)) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(mapped(change, *parts) for parts in zip(state, *others, strict=True))
    if is_dataclass(state) and not isinstance(state, type):
        names = [field.name for field in fields(state)]
        return replace(state, **{n: mapped(change, getattr(state, n), *(getattr(o, n) for o in others)) for n in names})
    return state


def _leaves(state: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(leaf: Tensor) -> Tensor:
        found.append(leaf)
        return leaf

    mapped(keep, state)
    return found


def alike(rows: Canvases) -> tuple[Tensor, Tensor]:
    """Equal canvases with equal memories: the first of each group [G], and the group of each row [R]."""
    count = len(rows.canvas)
    bits = [leaf.reshape(count, -1).double().view(torch.int64) for leaf in _leaves(rows.state) if leaf.numel()]
    keys = torch.cat([rows.canvas, *bits], dim=1)
    mixing = torch.randint(-(2**62), 2**62, (keys.shape[1],), generator=torch.Generator().manual_seed(1)) * 2 + 1
    found, group = ((keys ^ (keys >> 29)) * mixing).sum(1).unique(return_inverse=True)
    return torch.full((len(found),), count).scatter_reduce(0, group, torch.arange(count), "amin"), group


def joined(parts: list[Canvases]) -> Canvases:
    """All of them, equal ones merged."""
    state = mapped(lambda *leaves: torch.cat(leaves), *(part.state for part in parts))
    together = Canvases(torch.cat([p.canvas for p in parts]), torch.cat([p.weight for p in parts]), state)
    first, group = alike(together)
    weight = torch.zeros(len(first), dtype=torch.float64).index_add(0, group, together.weight)
    return replace(together.take(first), weight=weight)
