"""Which implementation of a kernel runs: the best one that can, and why.

Every kernel has a plain implementation called `reference`, which can do everything the
kernel promises; others may refuse a device, a dtype or a shape, and say so.
"""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

Shapes = Mapping[str, int]
#: From device, dtype and shapes to the reason why an implementation cannot run; None if it can.
Refusal = Callable[[torch.device, torch.dtype, Shapes], str | None]


class KernelError(ValueError):
    """A kernel that does not exist, or one that no implementation can run; says what mends it."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to run a kernel.

    :param kernel: what it computes.
    :param name: of this way; `reference` is the plain one.
    :param rank: the highest that can run is chosen.
    :param load: imports and returns it; called when it is chosen only.
    :param refuses: why it cannot run, or None.
    """

    kernel: str
    name: str
    rank: int
    load: Callable[[], Any]
    refuses: Refusal


_registered: dict[tuple[str, str], Implementation] = {}


def register(implementation: Implementation) -> None:
    """Make an implementation known.

    :raises KernelError: if its name is taken.
    """
    key = (implementation.kernel, implementation.name)
    if key in _registered:
        raise KernelError(f"kernel {key[0]!r} already has an implementation {key[1]!r}; choose another name")
    _registered[key] = implementation


def implementations(name: str) -> list[Implementation]:
    """All of a kernel, the best first.

    :raises KernelError: for an unknown kernel.
    """
    found = [item for item in _registered.values() if item.kernel == name]
    if not found:
        known = ", ".join(sorted({kernel for kernel, _ in _registered}))
        raise KernelError(f"no kernel is called {name!r}; known kernels: {known or 'none'}")
    return sorted(found, key=lambda item: -item.rank)


def choose(name: str, device: torch.device, dtype: torch.dtype, shapes: Shapes) -> Implementation:
    """The best implementation that can run.

    :raises KernelError: if none can, with every reason.
    """
    for item in implementations(name):
        if item.refuses(device, dtype, shapes) is None:
            return item
    raise KernelError(explain(name, device, dtype, shapes))


def passed_over(name: str, device: torch.device, dtype: torch.dtype, shapes: Shapes) -> tuple[str, ...]:
    """What would be better than the one that :func:`choose` finds, each with the reason why it cannot run.

    :raises KernelError: if none can run.
    """
    chosen = choose(name, device, dtype, shapes)
    better = [item for item in implementations(name) if item.rank > chosen.rank]
    return tuple(f"{item.name!r} {item.refuses(device, dtype, shapes)}" for item in better)


def kernel(name: str, device: torch.device, dtype: torch.dtype, shapes: Shapes) -> Any:
    """The best implementation that can run, ready to be called.

    :param shapes: the kernel's own names for the sizes it depends on.
    :raises KernelError: for an unknown kernel, or if no implementation can run.
    """
    return choose(name, device, dtype, shapes).load()


def explain(name: str, device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str:
    """One line per implementation, the best first: chosen, not needed, or why it cannot run.

    :raises KernelError: for an unknown kernel.
    """
    lines = [f"{name} on {device} in {dtype} with {dict(shapes)}:"]
    chosen = False
    for item in implementations(name):
        reason = item.refuses(device, dtype, shapes)
        if reason is None:
            reason, chosen = ("can run, but comes after the chosen one" if chosen else "chosen"), True
        lines.append(f"  {item.name}: {reason}")
    return "\n".join(lines if chosen else [*lines, "  nothing can run; use another device or dtype"])
