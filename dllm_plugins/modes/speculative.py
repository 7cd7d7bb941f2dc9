"""AR-verified diffusion drafts: the text of mode `ar` in fewer passes.

One pass holds the clean rows [last token, d1 ... dk] and, behind some of them, a group
of open rows that drafts what follows it, so verifying and drafting share the pass (as
in TiDAR, arXiv 2511.08923; our layout: docs/default-model.md). Which drafts are accepted
:mod:`dllm_plugins.drafting.speculation` says; a plan (:mod:`dllm_plugins.drafting.planner`),
how many are verified and where groups stand. Where clean and open rows cannot share a
call, the two take turns: one pass verifies, the next one drafts behind what was accepted.
"""

from functools import partial

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.drafting.acceptance import Proposal
from dllm_plugins.drafting.speculation import Speculation
from dllm_plugins.modes.ar import same_text
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.draft_options import SpeculativeSettings
from dllm_plugins.modes.draft_options import fit
from dllm_plugins.modes.draft_options import plan_of
from dllm_plugins.processes.base import NoiseProcess


def start(process: NoiseProcess, canvas: Canvas, settings: SpeculativeSettings, spec: ModelSpec) -> Program:
    """Verify, accept, draft again behind the last accepted token."""
    row, drawn = canvas.row, list[Proposal]()
    kind = "prefill" if len(row.tokens) == row.prompt else "verify"
    canvas.cut(len(row.tokens))
    canvas.extend()
    this = Speculation(process, canvas, plan_of(settings, spec, row), spec)
    while True:
        answer, *groups = yield this.verify(kind, drawn)
        accepted, kind, drawn = this.accept(answer), "verify", []
        if accepted not in this.groups:
            continue
        if spec.mixes:
            group, known = groups[list(this.groups).index(accepted)], this.forced
        else:
            size, known = this.groups[accepted], 0
            [group] = yield this.apart(this.group(len(row.tokens) - 1, size), Ask())
            this.count("open_rows", size)
        drawn = yield from draft(this, group.hidden, known)


def draft(this: Speculation, hidden: Tensor, known: int) -> Dialogue[list[Proposal]]:
    """Draw drafts left to right, each knowing the two tokens before it; hidden [n, width] of a group.

    :param known: how many of these positions a constraint has filled since.
    """
    plan, canvas, row = this.plan, this.canvas, this.row
    tokens, drawn = canvas.tokens, list[Proposal]()
    for index in range(known, len(hidden)):
        if drawn and not plan.go_on(drawn):
            break
        position = len(tokens)
        left, draws = torch.tensor([(*tokens[-1:-3:-1], -1)[:2]]), partial(row.draws, [position])
        own = hidden[index : index + 1]
        [answer] = yield (Ask(own, draws, left, shortlist=True, positions=[position], onward=True),)
        probability = float(answer.probability[0]) if plan.weighs or row.said is not None else 1.0
        drawn.append(plan.denoised(answer.tokens[0], probability, index))
        canvas.sure[position] = probability
        tokens.append(answer.tokens[0])
    return drawn


def sampler(process: NoiseProcess) -> Sampler:
    """It, on a process that says what an open position holds."""
    return Sampler(
        name="speculative",
        summary="diffusion drafts, verified autoregressively: the text of ar in fewer passes",
        source="TiDAR, arXiv 2511.08923; the layout is ours",
        settings=SpeculativeSettings,
        start=partial(start, process),
        unheld=None,
        onward=True,
        keeps_prefix=True,
        resumes=True,
        same_text=same_text,
        fit=fit,
    )
