"""Prompts with mask ids inside: where their gaps begin, and the prompt with its gaps filled."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.events import Finish


def behind_gaps(prompts: Sequence[Sequence[int]], mask: int) -> list[int]:
    """For each prompt, how many tokens of its answer lie inside it: those from its first gap on; 0 without one."""
    return [len(prompt) - list(prompt).index(mask) if mask in prompt else 0 for prompt in prompts]


def filled(input_ids: Tensor, done: Sequence[Finish], inside: Sequence[int], mask: int, pad: int) -> Tensor:
    """Prompts with their gaps filled in place, int64 [batch, length].

    Given tokens stay as they are. A gap behind a token that ended the answer holds what stood there
    then, and the pad token where that was open.

    :param input_ids: int64 [batch, length], padded on the left.
    """
    rows = input_ids.clone()
    for row, finish, count in zip(rows, done, inside, strict=True):
        if not count:
            continue
        canvas = [*finish.tokens, *finish.rest][:count]
        canvas += [None] * (count - len(canvas))
        found = torch.tensor([pad if token is None else token for token in canvas]).to(row)
        part = row[len(row) - count :]
        row[len(row) - count :] = torch.where(part == mask, found, part)
    return rows
