"""Autoregressive decoding: clean rows only, one token a pass."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from dllm_plugins.canvas import Row
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.failing import blaming
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import ask_each
from dllm_plugins.strategies.base import check_options
from dllm_plugins.strategies.base import frontier


class AutoregressiveStrategy:
    """The base model as it is: every other mode is measured against this one."""

    name = "ar"
    keeps_prefix = True
    holes = False
    suffix = False
    options: frozenset[str] = frozenset()

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """See :class:`~dllm_plugins.strategies.base.Strategy`."""
        check_options(self.name, config, self.options)

    def plan(self, row: Row, spec: ModelSpec) -> Plan:
        """The tokens that are not cached yet; the last one predicts the next."""
        run = row.tokens[row.frozen :]
        positions = range(row.frozen, len(row.tokens))
        segment = Segment(row.handle, run, positions, wanted=(len(run) - 1,))
        return Plan((segment,), "predict" if row.step else "prefill")

    def read(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> None:
        """Freeze what was forwarded and append one token."""
        asking = [(row, partial(frontier, row, parts[0])) for row, parts in zip(rows, hidden, strict=True)]
        for row, said in zip(rows, ask_each(denoiser, asking), strict=True):
            if said is None:
                continue
            with blaming(row):
                if row.logits is not None:
                    row.note(len(row.tokens), said.logits_at(0))
                denoiser.freeze(row.handle, len(row.tokens) - row.frozen)
                row.frozen = len(row.tokens)
                row.tokens += said.tokens

    def tentative(self, row: Row, spec: ModelSpec) -> tuple[int | None, ...]:
        """Nothing is tentative."""
        return ()
