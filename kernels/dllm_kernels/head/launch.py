"""The Triton implementation from outside: what it can serve, its launch, and joining its blocks."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.head.finish import Sums
from dllm_kernels.head.finish import statistics
from dllm_kernels.head.inverse import choose_block
from dllm_kernels.head.inverse import choose_place
from dllm_kernels.head.inverse import draw
from dllm_kernels.head.reference import masked_logits
from dllm_kernels.head.task import NARROW
from dllm_kernels.head.task import Shapes
from dllm_kernels.head.task import Task
from dllm_kernels.head.task import Unmasked

ROWS = 16
BLOCK = 128
#: Hidden units of one step of the product.
INNER = 64
#: Blocks of one launch where noise is asked for in parts: its buffer is float64 [N, SPAN * BLOCK].
SPAN = 64


def refuses(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str | None:
    """Why it cannot run, or None."""
    if find_spec("triton") is None:
        return "needs Triton (pip install triton)"
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"runs on a GPU, or with TRITON_INTERPRET=1 slowly on the CPU, not on {device.type}"
    if dtype not in NARROW:
        return f"sums in float32, so it does not take {dtype}"
    asked = [name for name in ("top_k", "cut", "logits", "pairs", "packed") if shapes.get(name)]
    return f"cannot serve {', '.join(asked)}" if asked else None


def fused(task: Task) -> Unmasked:
    """See :func:`~dllm_kernels.head.unmask`; serves what :func:`refuses` lets through."""
    return _join(task, _run(task))


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What the kernel says of each row and block.

    :param numbers: float32 [5, N, blocks]: largest, mass, moment, second, logit of the drawn id.
    :param scores: float64 [N, blocks], the best of logit / temperature + noise.
    :param heat: float64 [N, blocks], sum of e^((logit - largest) / temperature).
    :param ids: int32 [2, N, blocks]: of the largest logit, of the best score.
    """

    numbers: Tensor
    scores: Tensor
    heat: Tensor
    ids: Tensor


def _run(task: Task) -> _Blocks:
    count, blocks, device = task.positions, -(-task.vocabulary // BLOCK), task.weight.device
    out = _Blocks(
        torch.empty(5, count, blocks, device=device),
        torch.empty(count, blocks, dtype=torch.float64, device=device),
        torch.empty(count, blocks, dtype=torch.float64, device=device),
        torch.empty(2, count, blocks, dtype=torch.int32, device=device),
    )
    if not count:
        return out
    if task.noise is None or isinstance(task.noise, Tensor):
        _launch(task, out, task.noise, 0, blocks)
        return out
    for first in range(0, blocks, SPAN):
        last = min(first + SPAN, blocks)
        _launch(task, out, _noise(task, first * BLOCK, min(last * BLOCK, task.vocabulary)), first, last)
    return out


def _noise(task: Task, start: int, stop: int) -> Tensor:
    """Noise of all positions for a part of the vocabulary, float64 [N, stop - start]; zeros where none is used."""
    noise = torch.zeros(task.positions, stop - start, dtype=torch.float64, device=task.weight.device)
    for place in torch.nonzero(task.noisy)[:, 0].tolist():
        noise[place] = task.gumbel(place, start, stop)
    return noise


def _launch(task: Task, out: _Blocks, noise: Tensor | None, first: int, last: int) -> None:
    from dllm_kernels.head.fused import head_blocks

    common, constants = _arguments(task)
    # An absent argument still needs a pointer; the kernel does not read it.
    head_blocks[(-(-task.positions // ROWS), last - first)](
        *common,
        task.temperature.contiguous(),
        common[1] if noise is None else noise.to(task.weight.device).contiguous(),
        out.numbers,
        out.scores,
        out.heat,
        out.ids,
        *_sizes(task),
        out.scores.shape[1],
        out.scores.numel(),
        first,
        0 if noise is None else noise.shape[1],
        has_noise=noise is not None,
        has_heat=bool(task.inverted.any()),
        **constants,
    )


def _picked(task: Task, chosen: Tensor) -> Tensor:
    """Logits float32 [N, BLOCK] of each position's block `chosen`, int64 [N]."""
    from dllm_kernels.head.fused import head_picked

    common, constants = _arguments(task)
    out = torch.empty(task.positions, BLOCK, device=task.weight.device)
    head_picked[(-(-task.positions // ROWS), ROWS)](*common, chosen, out, *_sizes(task), **constants)
    return out


def _sizes(task: Task) -> tuple[int, int, int]:
    return task.positions, task.vocabulary, task.weight.shape[1]


def _arguments(task: Task) -> tuple[list[Tensor], dict[str, Any]]:
    """What both kernels take: tensors that say the logits, and constants."""
    from dllm_kernels.head.fused import INTERPRETED

    weight = task.weight.contiguous()
    banned = None
    if task.banned is not None:
        banned = torch.zeros(task.vocabulary, dtype=torch.int8, device=weight.device).index_fill_(0, task.banned, 1)
    tensors = [
        task.hidden.contiguous(),
        weight,
        weight if task.bias is None else task.bias.contiguous(),
        weight if banned is None else banned,
        weight if task.forced is None else task.forced.contiguous(),
    ]
    return tensors, {
        "has_bias": task.bias is not None,
        "has_banned": banned is not None,
        "has_forced": task.forced is not None,
        "rows": ROWS,
        "block": BLOCK,
        "inner": INNER,
        "interpreted": INTERPRETED,
    }


def _join(task: Task, out: _Blocks) -> Unmasked:
    largest, mass, moment, seconds, logits = out.numbers
    # argmax takes the first of equal blocks, whose ids are the lowest.
    leading = largest.argmax(-1, keepdim=True)
    most = chosen = largest.gather(1, leading)[:, 0]
    others = torch.scatter(largest, 1, leading, seconds.gather(1, leading))
    greedy = token = out.ids[0].gather(1, leading)[:, 0]
    if task.noise is not None:
        winning = out.scores.argmax(-1, keepdim=True)
        token, chosen = out.ids[1].gather(1, winning)[:, 0], logits.gather(1, winning)[:, 0]
        token, chosen = token.where(task.noisy, greedy), chosen.where(task.noisy, most)
    if bool(task.inverted.any()):
        drawn, logit = _inverted(task, out)
        token, chosen = drawn.where(task.inverted, token), logit.where(task.inverted, chosen)
    return Unmasked(token.long(), *statistics(Sums(largest, mass, moment), chosen, others.amax(-1)))


def _inverted(task: Task, out: _Blocks) -> tuple[Tensor, Tensor]:
    """Tokens int64 [N] and their logits float32 [N], where uniform numbers say; anything at other positions."""
    warmth = torch.where(task.inverted, task.temperature, 1.0)[:, None]
    half = choose_block(out.numbers[0].double() / warmth, out.heat, task.uniform.nan_to_num(0.5))
    logits = _picked(task, half.block)
    place, sure = choose_place(logits.double() / warmth, half)
    token, logit = half.block * BLOCK + place, logits.gather(1, place[:, None])[:, 0]
    for row in torch.nonzero(task.inverted & ~sure)[:, 0].tolist():
        # Too near a border for sums in parts: in one go, as whoever has all logits draws.
        whole = masked_logits(task.of(row))[0]
        token[row] = draw(whole.double() / task.temperature[row], task.uniform[row])
        logit[row] = whole[token[row]]
    return token, logit
