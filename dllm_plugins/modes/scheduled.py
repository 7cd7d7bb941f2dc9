"""LLaDA's block loop with schedules: blocks that end at delimiters, early commits, early ends, a short suffix.

Each option is off unless given, and with all of them off this is sampler `llada`. See
modes/schedule.py for what they do and where they are from. They may be combined.

`early_commit` watches the open positions of the answer, or the part of it that `answer_region`
names, as Prophet does where the place of the answer is known. Progress is the share of the answer
that is committed, which under rule quota is the reference's share of passes. `suffix_window`
is DPad's window without its random dropout inside the window.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.llada import confidence
from dllm_plugins.modes.ruled import Ruled
from dllm_plugins.modes.scheduling import Schedule
from dllm_plugins.modes.scheduling import ScheduledSettings
from dllm_plugins.modes.steps import Counts
from dllm_plugins.rules.at_work import Rules
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule


def start(rules: Rules, canvas: Canvas, settings: ScheduledSettings, spec: ModelSpec) -> Program:
    """Block after block, pass after pass."""
    schedule = Schedule(canvas, settings, spec)
    if canvas.row.gaps and settings.eos_confidence is not None:
        raise OptionError(
            f"eos_confidence={settings.eos_confidence} ends the whole text, and here it goes on behind each gap; leave "
            f"it out"
        )

    def sure(logits: Tensor, token: Tensor) -> Tensor:
        return confidence(logits, token, settings.late_tokens, logits.dtype)

    ruled = Ruled(canvas, rules, sure)
    block = schedule.block(canvas.prompt)
    while block.start < schedule.limit:
        searched = schedule.searched(block.start)
        while schedule.open(block):
            positions, watched = schedule.within(ruled.positions(block)), schedule.watched()
            wanted = [*positions, *schedule.more(positions, searched, watched)]
            logits = yield from schedule.forward(block, wanted)
            answers = dict(zip(wanted, logits, strict=True))
            if searched:
                block, searched = schedule.ending(block, searched, answers), range(0)
                positions = schedule.within(ruled.positions(block))
            if wanted != positions:
                logits = torch.stack([answers[position] for position in positions])
            positions, logits = schedule.end_early(positions, logits)
            if positions:
                ruled.commit(block, positions, of_logits(logits), hasty=settings.last_candidate)
            schedule.commit_early(watched, answers)
            if settings.revoke is None:
                canvas.release_committed()
        canvas.release(min(block.stop, schedule.limit))
        block = schedule.block(block.stop)


def fit(settings: ScheduledSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse an early end where nothing ends a text, and steps for blocks whose number only the answer tells.

    :raises OptionError: naming the option.
    """
    if settings.steps is not None and settings.delimiter_ids:
        raise OptionError(
            message(
                "{steps}={} cannot be met with delimiter_ids: how many blocks there are, only the answer tells; "
                "leave {steps} out, or give {threshold} or {factor}",
                settings.steps,
            )
        )
    if settings.eos_confidence is not None and not spec.stop_ids:
        raise OptionError(
            f"eos_confidence={settings.eos_confidence} has no effect: {spec.name} names no end of text; leave it out"
        )


def sampler(rules: Mapping[str, CommitRule], revocations: Mapping[str, RevocationRule]) -> Sampler:
    """It, with the rules there are."""
    known = Rules(rules, revocations)
    return Sampler(
        name="scheduled",
        summary="llada with blocks that end at delimiters, early commits, early ends, a short suffix",
        source="arXiv 2509.26432, 2508.19982, 2508.14148; see modes/schedule.py",
        settings=ScheduledSettings,
        start=partial(start, known),
        unheld=None,
        suffix=True,
        attention=frozenset({"bidirectional"}),
        counts=Counts.ANSWER,
        refuse=known.check,
        fit=fit,
    )
