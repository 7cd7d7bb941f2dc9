"""How much of a pass is the engine's own work, and what the rest is made of.

Requests whose prompt is in the cache already, so that no pass is a prefill; each gives
its seconds by part (`stats`). The engine's own work is all that is neither the forward
nor the head: plans, draws, rules, bookkeeping, text, events.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.engine.profile import FORWARD
from dllm_plugins.engine.profile import HEAD
from dllm_plugins.kept_prefixes import KeptPrefixes

#: No answer ends before its length.
NEVER: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Parts:
    """Medians over requests of their mean pass.

    :param ms: milliseconds of a pass by part, as in `dllm_plugins.engine.profile`.
    :param rows: positions forwarded in a pass.
    """

    ms: dict[str, float]
    rows: float

    @property
    def model(self) -> float:
        """Milliseconds of the forward and the head."""
        return self.ms[FORWARD] + self.ms[HEAD]

    @property
    def whole(self) -> float:
        """Milliseconds of all."""
        return sum(taken for name, taken in self.ms.items() if "/" not in name)

    @property
    def engine(self) -> float:
        """Milliseconds of the engine's own work."""
        return self.whole - self.model


def asked(mode: str, rows: int) -> dict[str, Any]:
    """Options of a mode under which its passes forward about `rows` positions.

    :raises ValueError: for numbers of rows that the mode does not have.
    """
    if mode == "diffusion" and rows > 1:
        return {"block_length": rows - 1}
    if mode == "ar" and rows == 1:
        return {}
    drafts = round(rows**0.5) - 1
    if mode == "speculative" and drafts >= 1 and (drafts + 1) ** 2 == rows:
        return {"draft_length": drafts}
    raise ValueError(f"no pass of mode {mode!r} has {rows} rows")


def parts_of(
    model: Model, tokens: Sequence[int], mode: str, rows: int, passes: int, rounds: int, kept: KeptPrefixes
) -> Parts:
    """Make `passes` passes behind `tokens`, once unmeasured and then `rounds` times.

    :param kept: where the prefix is, or will be for the next measurement.
    """
    new = (passes + 1) * rows
    engine = model.engine(kept)
    config = SamplingConfig(mode=mode, max_new_tokens=new, stats=True, **asked(mode, rows))
    each: list[dict[str, float]] = []
    rows_forwarded: list[float] = []
    for _ in range(rounds + 1):
        number = engine.admit(Request(list(tokens), config, stop_ids=NEVER))
        for _ in range(passes):
            engine.step()
        usage = engine.stop(number, 0).usage
        each.append({name: 1000 * taken / passes for name, taken in (usage.parts or {}).items()})
        rows_forwarded.append(usage.rows / passes)
    ms = {name: statistics.median(taken[name] for taken in each[1:]) for name in each[0]}
    return Parts(ms, statistics.median(rows_forwarded[1:]))
