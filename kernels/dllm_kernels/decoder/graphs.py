"""Passes recorded once and replayed: hundreds of kernel launches become one.

A recorded pass reads its inputs from buffers of its own and writes its output to another;
everything that may change between two passes (tokens, prefix lengths, pages, masks) is
copied into those buffers. What cannot change is its shapes, so there is a recording
for each set of shapes, up to a bound.
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Work without inputs of its own, which leaves its result in the same place each time.
Work = Callable[[], Tensor]
#: From work to its result's place and how to do it again.
Record = Callable[[Work], tuple[Tensor, Callable[[], None]]]
#: Recordings kept; each holds the memory of one pass's outputs.
MOST = 16


@dataclass(frozen=True, slots=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], None]


class Graphs:
    """Recordings of one function of tensors.

    :param work: from tensors to a tensor; must not read their values on the host, nor
        depend on anything that changes, other than the `state` given to :meth:`run`.
    :param record: :func:`cuda_recorder`'s, or a stand-in.
    :param most: recordings kept; the one not used for longest goes first.
    """

    def __init__(self, work: Callable[..., Tensor], record: Record, most: int = MOST) -> None:
        self._work = work
        self._record = record
        self._most = most
        self._state: Any = None
        self._kept: OrderedDict[tuple[Any, ...], _Recording] = OrderedDict()

    def __len__(self) -> int:
        """Recordings kept."""
        return len(self._kept)

    def run(self, inputs: Sequence[Tensor], state: Any = None) -> Tensor:
        """What the work gives for these inputs, in memory of its own.

        :param state: of what recordings know by address; another one than last time makes them all void.
        """
        if state != self._state:
            self._kept.clear()
            self._state = state
        key = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        found = self._kept.get(key)
        if found is None:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            found = self._kept[key] = self._recorded(inputs)
        else:
            self._kept.move_to_end(key)
            for buffer, tensor in zip(found.inputs, inputs, strict=True):
                buffer.copy_(tensor)
        found.replay()
        return found.output.clone()

    def _recorded(self, inputs: Sequence[Tensor]) -> _Recording:
        buffers = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in inputs)
        output, replay = self._record(lambda: self._work(*buffers))
        return _Recording(buffers, output, replay)


def cuda_recorder(device: torch.device) -> Record:
    """CUDA graphs; all recordings share their memory, as one is replayed at a time and its output is copied."""
    pool = torch.cuda.graph_pool_handle()
    side = torch.cuda.Stream(device)

    def record(work: Work) -> tuple[Tensor, Callable[[], None]]:
        current = torch.cuda.current_stream(device)
        side.wait_stream(current)
        # Once without recording: compiling, tuning and a library's own workspaces are not to be recorded.
        try:
            with torch.cuda.stream(side):
                work()
        finally:
            # Also after an interrupt: the next pass writes to the same pages.
            current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=side):
            output = work()
        return output, graph.replay

    return record
