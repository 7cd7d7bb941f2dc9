"""How sure a model is of each open position, as Dream and the samplers that came from it measure it.

Source: ZHZisZZ/dllm ca176752 `dream/models/generation_utils.py` and, for the second
measure, pengzhangzhi/Open-dLLM 8b38787 `qwen2/generation_utils.py`. Temperature, top_p
and then top_k reshape the distribution before it is measured. At temperature 0 top_p and
top_k leave the likeliest token as it is but change how sure it looks, and with that the
order in which positions are committed.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.row import Row
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import likeliest
from dllm_plugins.prediction import predict


@dataclass(frozen=True, slots=True)
class Measure:
    """What two generations of the same code compute differently.

    :param single: probabilities are float32, whatever the logits are.
    :param logarithm: of probabilities that may be 0.
    """

    single: bool
    logarithm: Callable[[Tensor], Tensor]


#: In 16 bits the summand is lost, as it is in the reference.
DREAM = Measure(single=False, logarithm=lambda probability: torch.log(probability + 1e-10))
OPEN_DLLM = Measure(single=True, logarithm=lambda probability: torch.log(probability.clamp(min=1e-10)))


@dataclass(frozen=True, slots=True)
class Found:
    """Tokens drawn at N positions and how sure each is: int64 [N] and float [N], on the CPU."""

    token: Tensor
    confidence: Tensor


def truncated(logits: Tensor, top_p: float | None, top_k: int | None) -> Tensor:
    """Logits [N, V] with all but the likeliest at the smallest finite number.

    The token that crosses top_p stays, and so do those that tie with the k-th.
    """
    least = torch.finfo(logits.dtype).min
    if top_p is not None and top_p < 1:
        ordered, index = torch.sort(logits, dim=-1, descending=True)
        beyond = torch.softmax(ordered, dim=-1).cumsum(-1) > top_p
        beyond = torch.cat([torch.zeros_like(beyond[:, :1]), beyond[:, :-1]], dim=-1)
        logits = logits.masked_fill(beyond.scatter(-1, index, beyond), least)
    if top_k is not None:
        best = torch.topk(logits, min(top_k, logits.shape[-1])).values
        logits = logits.masked_fill(logits < best[:, -1:], least)
    return logits


def draw(canvas: Canvas, logits: Tensor, positions: Sequence[int], *, sampled: bool) -> Tensor:
    """The likeliest token of each position, or one drawn with the noise of this pass; int64 [N], logits [N, V]."""
    if not sampled:
        return likeliest(logits)
    # Tempered and cut before, in a way of its own.
    draws = [Draw(1.0, uniform=draw.uniform) for draw in canvas.row.canvas_draws(positions)]
    return predict(logits, draws).token


def without_mask(canvas: Canvas, logits: Tensor) -> Tensor:
    """Logits [N, V] that never yield the mask id: a position that takes it would stay open."""
    return logits.index_fill(-1, torch.tensor([canvas.mask], device=logits.device), torch.finfo(logits.dtype).min)


def measure(logits: Tensor, canvas: Canvas, positions: Sequence[int], alg: str, way: Measure) -> Found:
    """Draw a token at each position and measure it by `alg`; logits [N, V], N above 0.

    The mask id counts when a position is measured, as in the references, but is never drawn.
    """
    config = canvas.row.config
    sampled = config.temperature > 0
    if sampled:
        logits = logits / config.temperature
    kept = truncated(logits, config.top_p, config.top_k)
    probability = torch.softmax(kept.float() if way.single else kept, dim=-1)
    drawable = truncated(without_mask(canvas, logits), config.top_p, config.top_k)
    token = draw(canvas, drawable, positions, sampled=sampled)
    return Found(token.cpu(), _confidence(probability, token, alg, way).cpu())


def _confidence(probability: Tensor, token: Tensor, alg: str, way: Measure) -> Tensor:
    """[N]: the drawn token's probability, the lead of the first over the second, or the negative entropy."""
    if alg == "topk_margin":
        best = torch.topk(probability, 2, dim=-1).values
        return best[:, 0] - best[:, 1]
    if alg == "entropy":
        return (probability * way.logarithm(probability)).sum(-1)
    return probability.gather(-1, token[:, None])[:, 0]


def surest(confidence: Tensor, count: int, row: Row, alg_temp: float | None) -> list[int]:
    """Indices of the `count` largest confidences [N]; those at minus infinity are never among them.

    With `alg_temp` they are drawn without replacement, each as likely as the softmax of
    confidence / alg_temp says: the largest after adding Gumbel noise (arXiv 1903.06059).
    """
    if alg_temp:
        noise = row.noise.gumbel(Key(Purpose.CONFIDENCE, step=row.step), len(confidence))
        confidence = confidence.double() / alg_temp + noise
    return torch.topk(confidence, count).indices.tolist()


def commit(canvas: Canvas, positions: Sequence[int], token: Tensor, logits: Tensor, chosen: Sequence[int]) -> None:
    """Write the drawn tokens [N] of those positions that were chosen; logits [N, V]."""
    picked = set(chosen)
    for index, position in enumerate(positions):
        if position in picked:
            canvas.write(position, int(token[index]), logits[index])
