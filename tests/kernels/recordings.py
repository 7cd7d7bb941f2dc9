"""Recordings of torch operators, in place of CUDA graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dllm_kernels.decoder.graphs import Work


class Tape(TorchDispatchMode):
    """A graph without a GPU: torch's operators as they were called, done again on the same memory.

    Like a CUDA graph it runs no Python of the recorded work, and numbers may not be read.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "the work waits for a number"
        found = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        for func, args, kwargs, place in self.steps:
            found = func(*args, **kwargs)
            if isinstance(found, Tensor) and found.data_ptr() != place.data_ptr():
                place.copy_(found)


class Recorder:
    """Counts what is recorded."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work: Work) -> tuple[Tensor, Callable[[], None]]:
        self.recorded += 1
        with Tape() as tape:
            output = work()

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return output, replay
