"""What samplers do to their canvas: draw, with logits or without, lengthen, end."""

from collections.abc import Sequence

from torch import Tensor

from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict
from dllm_plugins.samplers.base import Asked
from dllm_plugins.samplers.canvas import Canvas


def draw_tokens(canvas: Canvas, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Tokens, int64 [N], none of them the mask id; logits [N, V]."""
    return predict(canvas.drawable(logits), draws).token


def draw_open(canvas: Canvas, logits: Tensor, places: Sequence[int]) -> Tensor:
    """The same for open positions, with their noise of this pass."""
    return draw_tokens(canvas, logits, canvas.row.canvas_draws(places))


def ask(canvas: Canvas, places: Sequence[int]) -> Asked | None:
    """To be told tokens and probabilities at `places` in place of logits; None if the request wants those."""
    return None if canvas.row.logits is not None else Asked(places)


def told(asked: Asked | None, logits: Tensor) -> tuple[Tensor, Tensor] | None:
    """Tokens, int64 [N], and their probabilities as the logits' dtype has them, [N]; None if there are logits."""
    said = None if asked is None else asked.said
    return None if said is None else (said.token, said.probability.to(logits.dtype))


def extend(canvas: Canvas, end: int) -> None:
    """Open positions up to `end`."""
    canvas.tokens += [canvas.mask] * (end - len(canvas.tokens))


def end_of_text(canvas: Canvas, end: int) -> int | None:
    """Behind the first stop id of the answer before `end`, or the answer's own end; None if it goes on."""
    settled = canvas.tokens[canvas.prompt : min(end, canvas.end)]
    found = (place + 1 for place, token in enumerate(settled, canvas.prompt) if token in canvas.row.stop_ids)
    return next(found, canvas.end if end >= canvas.end else None)


def release(canvas: Canvas, end: int) -> bool:
    """Everything before `end` is final; whether the text ends there, in which case the canvas does, too."""
    behind = end_of_text(canvas, end)
    if behind is not None:
        del canvas.tokens[behind:]
    canvas.release(end if behind is None else behind)
    return behind is not None
