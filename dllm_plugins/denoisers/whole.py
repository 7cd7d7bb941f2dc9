"""Whole sequences of classes that say by themselves who sees whom, such as encoders with local windows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def whole_sequences(body: Any, sequences: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
    """Hidden states [tokens, hidden] of each, in one call; shorter ones are padded.

    :param body: a class of transformers that takes a mask of two dimensions for what is padding.
    """
    lengths = [len(tokens) for tokens in sequences]
    longest = max(lengths)
    # What stands there is not seen; 0 is a token of every vocabulary.
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in sequences])
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    # Without padding the call is the one that a row alone has.
    told = {} if bool(mask.all()) else {"attention_mask": mask.long().to(device)}
    hidden: Tensor = body(input_ids=ids.to(device), **told).last_hidden_state
    return [row[:length] for row, length in zip(hidden, lengths, strict=True)]
