"""The head in plain torch: builds [N, V]. What the other implementations are held to."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.head.inverse import draw
from dllm_kernels.head.task import Task
from dllm_kernels.head.task import Unmasked


def masked_logits(task: Task) -> Tensor:
    """All logits [N, V], minus infinity where a token is banned or another one forced."""
    logits = F.linear(task.hidden, task.weight, task.bias)
    if task.banned is not None:
        logits = logits.index_fill(1, task.banned, -torch.inf)
    if task.banned_at is not None:
        logits[task.banned_at[:, 0], task.banned_at[:, 1]] = -torch.inf
    if task.forced is not None:
        ids = torch.arange(task.vocabulary, device=logits.device)
        other = (task.forced[:, None] >= 0) & (ids != task.forced[:, None])
        logits = logits.masked_fill(other, -torch.inf)
    return logits


def _drawn(task: Task, logits: Tensor) -> Tensor:
    """Greedy positions take the first largest logit, the others the largest of logit / temperature + noise,
    or where a uniform number says.
    """
    token = torch.argmax(logits, dim=-1)
    for place in torch.nonzero(task.inverted)[:, 0].tolist():
        token[place] = draw(logits[place].double() / task.temperature[place], task.uniform[place])
    for place in torch.nonzero(task.noisy)[:, 0].tolist():
        scaled = logits[place].double() / task.temperature[place]
        if cut := int(task.cut[place]):
            scaled = scaled.masked_fill(scaled < torch.topk(scaled, cut).values[-1], -torch.inf)
        token[place] = torch.argmax(scaled + task.gumbel(place, 0, task.vocabulary))
    return token


def reference(task: Task) -> Unmasked:
    """See :func:`~dllm_kernels.head.unmask`."""
    logits = masked_logits(task)
    token = _drawn(task, logits)
    # In float64: how float32 rounds a sum over a whole vocabulary depends on the width of the machine's vectors.
    probabilities = torch.softmax(logits.double(), dim=-1)
    two = torch.topk(probabilities, min(2, task.vocabulary)).values
    margin = two[:, 0] - two[:, 1] if task.vocabulary > 1 else two[:, 0]
    probability = probabilities.gather(1, token[:, None])[:, 0]
    entropy = torch.special.entr(probabilities).sum(-1)
    top_ids = top_logits = None
    if task.top_k:
        values, order = torch.sort(logits.float(), dim=-1, descending=True, stable=True)
        top_ids, top_logits = order[:, : task.top_k], values[:, : task.top_k]
    measures = (probability.float(), entropy.float(), margin.float())
    return Unmasked(token, *measures, top_ids, top_logits, logits if task.logits else None)
