"""Whether an answer calls a tool, found out before its first token: see :mod:`dllm_plugins.tools.choosing`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.program import UNLIMITED
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.engine.constrained import limits_of
from dllm_plugins.engine.slices import read
from dllm_plugins.engine.slices import sliced
from dllm_plugins.errors import RequestError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.request import Request
from dllm_plugins.tools.choosing import LIKELY
from dllm_plugins.tools.choosing import Choosing

#: Of a pass that tells how likely a call is. It is none of the sampler's.
KIND = "choice"


def limits_of_calls(row: Row, request: Request, sampler: Sampler, tokenizer: Any, spec: ModelSpec) -> Limits | None:
    """What the row's answer is held to if it calls; None if nothing is to be chosen, or no call fits into its room.

    :raises OptionError: for calls that no text is.
    """
    if request.choosing is None or not sampler.keeps_prefix:
        return None
    try:
        return limits_of(row, row.prompt, sampler, tokenizer, spec, constraint=request.choosing.calls)
    except RequestError:
        return None


def program_of(request: Request, sampler: Sampler, called: Limits | None) -> Callable[[Canvas, ModelSpec], Program]:
    """The sampler's program, behind whatever comes before it.

    :param called: what the answer is held to if it calls; None if that is not to be found out.
    """
    if called is not None and request.choosing is not None:
        return partial(_chosen, sampler=sampler, how=request.choosing, called=called, most=request.slice)
    if request.slice is not None and not sampler.rereads:
        return partial(sliced, sampler=sampler, most=request.slice)
    return sampler.program


def _chosen(
    canvas: Canvas, spec: ModelSpec, sampler: Sampler, how: Choosing, called: Limits, most: int | None
) -> Program:
    row, most = canvas.row, most or spec.context
    # There is nothing to be seen before the prompt has been read.
    canvas.shown = row.prompt
    idle, common = LIKELY, how.common(row.tokens)
    if how.idle is not None and common is not None:
        yield from read(row, common, most)
        idle = yield from _said(row, how.idle[row.frozen :], how.mark, freeze=False)
    yield from read(row, row.prompt, most, left=most)
    asked = yield from _said(row, tuple(row.tokens[row.frozen :]), how.mark, freeze=True)
    if asked > idle:
        row.limits = called
    canvas.shown = None
    yield from sampler.program(canvas, spec)


def _said(row: Row, rest: tuple[int, ...], mark: tuple[int, ...], *, freeze: bool) -> Dialogue[float]:
    """The log-probability of a mark behind the row's prefix and the rest of a prompt.

    :param freeze: whether the rest joins the prefix, but for its last token, which a sampler's program begins with.
    """
    tokens = (*rest, *mark[:-1])
    begin, first = row.frozen, len(rest) - 1
    part = Segment(row.handle, tokens, range(begin, begin + len(tokens)), wanted=range(first, len(tokens)))
    [answer] = yield Pass((part,), KIND, freeze=first if freeze else 0, asks=(UNLIMITED,))
    said = answer.logits.float().log_softmax(-1)
    return float(said[torch.arange(len(mark)), torch.tensor(mark)].sum())
