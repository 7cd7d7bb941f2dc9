"""What the model says of a token: its log-probability, and the likeliest tokens in its place."""

import math

import torch
from torch import Tensor

from dllm_plugins.events import TokenLogprob


def said_of(logits: Tensor, token: int, alternatives: int, mask: int) -> TokenLogprob:
    """Of one token; the mask id counts among the probabilities, but is no alternative.

    :param logits: the model's, [V], in any float dtype; the softmax is taken in float32.
    """
    found = torch.log_softmax(logits.detach().float(), dim=-1)
    return TokenLogprob(token, float(found[token]), _likeliest(found, alternatives, mask))


def _likeliest(logprobs: Tensor, count: int, mask: int) -> tuple[tuple[int, float], ...]:
    if not count:
        return ()
    values, ids = torch.topk(logprobs, min(count + 1, len(logprobs)))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    # What a constraint forbids is no alternative either. Ties fall as they do among drawn tokens: the first id first.
    ordered = sorted(
        (pair for pair in pairs if pair[0] != mask and pair[1] > -math.inf), key=lambda pair: (-pair[1], pair[0])
    )
    return tuple(ordered[:count])
