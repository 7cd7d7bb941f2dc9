"""Rule-driven block sampling on an exact cache: any commit rule on any block-causal checkpoint.

Only the newest block is denoised; finished ones are frozen (see
:mod:`~dllm_plugins.modes.blocks`). Blocks are aligned to position 0, as the families
with this attention are trained.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.ruled import Ruled
from dllm_plugins.modes.ruled import RuledSettings
from dllm_plugins.modes.steps import Counts
from dllm_plugins.prediction import probability_of
from dllm_plugins.rules.at_work import Rules
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule


def probability(logits: Tensor, token: Tensor) -> Tensor:
    """Probability [N] of drawn tokens [N], float32; logits [N, V]."""
    return probability_of(logits, token, torch.float32).cpu()


def start(rules: Rules, canvas: Canvas, settings: RuledSettings, spec: ModelSpec) -> Program:
    """Block after block; nothing is denoised behind the answer's end."""
    ruled = Ruled(canvas, rules, probability)
    blocks = Blocks(canvas, settings.block_length or spec.block_length, shift=int(spec.shifted))
    for block in blocks.answer():
        while canvas.wanting(block):
            positions = ruled.positions(block)
            answer = yield from blocks.forward(block, positions, ask=LOGITS if spec.shifted else ruled.ask(positions))
            ruled.commit(block, positions, answer)
        canvas.release(block.stop)


def sampler(rules: Mapping[str, CommitRule], revocations: Mapping[str, RevocationRule]) -> Sampler:
    """It, with the rules there are."""
    known = Rules(rules, revocations)
    return Sampler(
        name="blocks",
        summary="any commit rule on blocks aligned to position 0, exact cache",
        source="arXiv 2503.09573, with the rules' own sources",
        settings=RuledSettings,
        start=partial(start, known),
        unheld=None,
        keeps_blocks=True,
        suffix=True,
        refuse=known.check,
        attention=frozenset({"block-causal"}),
        counts=Counts.BLOCK,
    )
