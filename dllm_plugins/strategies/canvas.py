"""Whole-canvas denoising, block by block: models whose rows all see one another.

Every pass forwards the prompt and the whole canvas, without a cache, and settles
positions of the leftmost unfinished block (semi-autoregressive sampling of LLaDA, arXiv
2502.09992). Guidance after arXiv 2207.12598: a second copy of the sequence, its prompt
masked, and logits = unconditional + (guidance + 1) * (conditional - unconditional).
"""

from collections.abc import Mapping
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.canvas import Row
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.prediction import Prediction
from dllm_plugins.prediction import predict
from dllm_plugins.processes.masked import MaskedProcess
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import check_options
from dllm_plugins.strategies.base import choose_rule
from dllm_plugins.strategies.base import stack


class CanvasStrategy:
    """Mode `diffusion` of bidirectional models: no cache, a commit rule, optional guidance."""

    name = "canvas"

    def __init__(self, rules: Mapping[str, CommitRule], process: MaskedProcess) -> None:
        self.rules = rules
        self.process = process
        self.options = frozenset({"block_length", "rule", "guidance"}).union(*(rule.options for rule in rules.values()))

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """See :class:`~dllm_plugins.strategies.base.Strategy`."""
        rule = choose_rule(config, self.rules)
        check_options(f"diffusion, rule {rule.name}", config, rule.options | {"block_length", "rule", "guidance"})

    @staticmethod
    def _block(row: Row, spec: ModelSpec) -> range:
        """The leftmost unfinished block; the last one may be short."""
        size = row.config.block_length or spec.block_length
        begin = row.prompt + (len(row.tokens) - row.prompt) // size * size
        return range(begin, min(begin + size, row.end))

    def _open(self, row: Row, spec: ModelSpec) -> list[int]:
        block = self._block(row, spec)
        return [place for place in range(len(row.tokens), block.stop) if place not in row.settled]

    def _sequence(self, row: Row, spec: ModelSpec, *, blind: bool) -> list[int]:
        """Prompt, settled tokens and noise; the prompt is noise too if `blind`."""
        whole = [*row.tokens, *self.process.noised(row.end - len(row.tokens), spec)]
        for place, token in row.settled.items():
            whole[place] = token
        if blind:
            whole[: row.prompt] = self.process.noised(row.prompt, spec)
        return whole

    def plan(self, row: Row, spec: ModelSpec) -> Plan:
        """The whole sequence, twice with guidance; predictions at the block's open positions."""
        wanted = [max(place - 1, 0) if spec.shifted else place for place in self._open(row, spec)]
        segments = tuple(
            Segment(
                row.handle,
                self._sequence(row, spec, blind=blind),
                range(row.end),
                noisy=True,
                causal=False,
                wanted=wanted,
            )
            for blind in ((False, True) if row.config.guidance is not None else (False,))
        )
        return Plan(segments, "predict")

    def read(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> None:
        """Settle what each row's rule accepts."""
        for row, parts in zip(rows, hidden, strict=True):
            places = self._open(row, denoiser.spec)
            drawn = predict(self._logits(row, parts, denoiser), [row.canvas_draw(place) for place in places])
            self._settle(row, self._block(row, denoiser.spec), places, drawn)

    @staticmethod
    def _logits(row: Row, parts: Sequence[Tensor], denoiser: Denoiser) -> Tensor:
        if row.config.guidance is None:
            return denoiser.logits(stack(parts))
        conditional, blind = denoiser.logits(stack(parts)).chunk(2)
        return blind + (row.config.guidance + 1) * (conditional - blind)

    def _settle(self, row: Row, block: range, places: Sequence[int], drawn: Prediction) -> None:
        index = torch.tensor(places) - block.start
        probability = torch.zeros(1, len(block)).index_copy(1, index, drawn.probability[None].cpu())
        is_open = torch.zeros(1, len(block), dtype=torch.bool).index_fill(1, index, True)
        view = CanvasView(
            probability=probability,
            open=is_open,
            settled_now=torch.tensor([0]),
            step=torch.tensor([self._step(row, block)]),
            noise=(row.noise,),
        )
        decision, row.rule_state = choose_rule(row.config, self.rules).decide(view, (row.config,), row.rule_state)
        for number, place in enumerate(places):
            if decision[0, place - block.start]:
                row.note(place, drawn.logits[number])
                row.settle(place, int(drawn.token[number]))

    @staticmethod
    def _step(row: Row, block: range) -> int:
        """Passes this block has had before this one."""
        if row.block_start != block.start:
            row.block_start, row.block_step = block.start, row.step
        return row.step - row.block_step

    def tentative(self, row: Row, spec: ModelSpec) -> tuple[int | None, ...]:
        """The canvas behind the final text, None where open."""
        return tuple(row.settled.get(place) for place in range(len(row.tokens), row.end))
