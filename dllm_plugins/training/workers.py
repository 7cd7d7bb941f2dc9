"""The processes of one training run: this one alone, or those that `accelerate launch` started, one a device.

Each trains on its own part of the text, and their gradients are averaged, so that all hold the same weights.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.libraries.extras import need

#: What `accelerate launch` leaves in the environment of the processes that it starts.
_LAUNCHED = "ACCELERATE_"


@dataclass(frozen=True, slots=True)
class Workers:
    """One process among `count`.

    :param rank: its number; the first one evaluates and writes files.
    :param accelerator: accelerate's, which talks to the others; None where there are none.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this one evaluates and writes files."""
        return self.rank == 0

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Average float32 tensors in place over all processes, in one message."""
        if self.count == 1:
            return
        flat = self.accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduction="mean")
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, part in zip(tensors, flat.split(sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Until all are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def workers(device: str = "auto") -> Workers:
    """Find this process among those that were launched with it.

    :param device: a torch device, or "auto"; of launched processes accelerate says which each has.
    :raises MissingExtraError: if it was launched, and accelerate is not installed.
    :raises OptionError: for a device torch does not have.
    """
    if not any(name.startswith(_LAUNCHED) for name in os.environ):
        return Workers(best_device(device))
    made = need("accelerate", "training in several processes").Accelerator()
    return Workers(made.device, made.process_index, made.num_processes, made)
