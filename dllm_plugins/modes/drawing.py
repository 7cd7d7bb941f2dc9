"""What samplers do to their canvas: draw, with logits or without, lengthen, end."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict


def drawn(canvas: Canvas, logits: Tensor, positions: Sequence[int]) -> Answer:
    """Tokens of open positions, with their noise of this pass, from logits [N, V]; none of them the mask id."""
    return Answer(logits, predict(logits, canvas.row.canvas_draws(positions), never=canvas.mask))


def draw_tokens(canvas: Canvas, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Tokens, int64 [N], none of them the mask id; logits [N, V]."""
    return predict(logits, draws, never=canvas.mask).token


def draw_open(canvas: Canvas, logits: Tensor, positions: Sequence[int]) -> Tensor:
    """The same for open positions, with their noise of this pass."""
    return draw_tokens(canvas, logits, canvas.row.canvas_draws(positions))


def ask(canvas: Canvas, positions: Sequence[int], *, logits: bool = False) -> Ask:
    """To be told a token at each of these open positions, drawn with its noise of the pass that answers.

    :param logits: whether the logits are wanted, too, as they are where the request asks for them.
    """
    return Ask(
        draws=partial(canvas.row.canvas_draws, positions),
        logits=logits or canvas.row.wants_logits,
        positions=positions,
    )


def extend(canvas: Canvas, end: int) -> None:
    """Open positions up to `end`."""
    canvas.tokens += [canvas.mask] * (end - len(canvas.tokens))


def end_of_text(canvas: Canvas, end: int) -> int | None:
    """Behind the first stop id of the answer before `end`, or the answer's own end; None if it goes on."""
    committed = canvas.tokens[canvas.prompt : min(end, canvas.end)]
    found = (position + 1 for position, token in enumerate(committed, canvas.prompt) if token in canvas.row.stop_ids)
    return next(found, canvas.end if end >= canvas.end else None)


def release(canvas: Canvas, end: int) -> bool:
    """Everything before `end` is final; whether the text ends there, in which case the canvas does, too."""
    behind = end_of_text(canvas, end)
    if behind is not None:
        del canvas.tokens[behind:]
    canvas.release(end if behind is None else behind)
    return behind is not None
