"""A weight that is made when it is read, so that a checkpoint never lies in memory twice."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.private_torch import NO_TORCH_FUNCTION
from dllm_kernels.private_torch import is_conversion
from dllm_kernels.private_torch import mapped
from dllm_kernels.private_torch import without_storage

#: Gives rows start to stop, float32.
ReadRows = Callable[[int, int], Tensor]


#: So many numbers are made at a time: larger pieces between the weights that stay would leave holes in the heap.
STEP = 1 << 18


def spans(columns: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Rows start to stop, a few at a time."""
    step = max(1, STEP // max(columns, 1))
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def in_steps(columns: int, start: int, stop: int, fill: Callable[[Tensor, int, int], None]) -> Tensor:
    """Rows start to stop, float32 [rows, columns], a few at a time, so that what is needed on the way stays small.

    :param fill: writes the rows between two numbers into the tensor that it is given.
    """
    found = torch.empty((stop - start, columns))
    for first, last in spans(columns, start, stop):
        fill(found[first - start : last - start], first, last)
    return found


class LazyWeight(Tensor):
    """A float32 tensor of known shape; whatever is computed with it makes it first.

    Splitting it by rows gives others of its kind.
    """

    # torch's own stubs say otherwise of both hooks.
    __torch_function__ = NO_TORCH_FUNCTION
    rows: ReadRows

    @staticmethod
    def __new__(cls: "type[LazyWeight]", shape: Sequence[int], rows: ReadRows) -> "LazyWeight":
        """A tensor without storage."""
        made: LazyWeight = without_storage(cls, tuple(shape))
        made.rows = rows
        return made

    def converted(self, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        """All of it in another dtype, which never lies in memory in this one."""
        made = torch.empty(self.shape, dtype=dtype, device=device)
        for first, last in spans(prod(self.shape[1:]), 0, self.shape[0]):
            made[first:last] = self.rows(first, last)
        return made

    def whole(self) -> Tensor:
        """All of it, float32."""
        return self.rows(0, self.shape[0])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Every operation but `[...]`, a split by rows and a conversion makes the weights it is given."""
        if func is torch.ops.aten.split_with_sizes.default and len(args) == 2:
            return cls._split(*args)
        if func in (
            torch.ops.aten.alias.default,
            torch.ops.aten.detach.default,
        ):  # `Parameter` detaches, torch decides how
            return cls(args[0].shape, args[0].rows)
        if is_conversion(func) and {"dtype"} <= (kwargs or {}).keys() <= {"dtype", "device"}:
            wanted = dict(kwargs or {})
            return args[0].converted(wanted["dtype"], wanted.get("device"))
        made_args, made_kwargs = mapped(cls, cls.whole, (tuple(args), dict(kwargs or {})))
        return func(*made_args, **made_kwargs)

    @classmethod
    def _split(cls, weight: "LazyWeight", sizes: Sequence[int]) -> list["LazyWeight"]:
        parts, start = [], 0
        for size in sizes:
            parts.append(cls((size, *weight.shape[1:]), partial(_behind, weight.rows, start)))
            start += size
        return parts


def _behind(rows: ReadRows, first: int, start: int, stop: int) -> Tensor:
    return rows(first + start, first + stop)
