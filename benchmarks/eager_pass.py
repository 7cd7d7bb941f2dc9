"""transformers' own forward of the default model's base over a block, attention as it is written in Python."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers import DynamicCache

from dllm_plugins.default_model.base_model import require_base


class Eager:
    """A causal pass with logits at every position, on the cache of a prefix.

    :param tokens: the prefix and the block behind it.
    :param prefix: how many of them are the prefix.
    """

    @torch.inference_mode()
    def __init__(self, tokens: Sequence[int], prefix: int) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            require_base(), dtype=torch.bfloat16, attn_implementation="eager", trust_remote_code=False
        ).eval()
        # transformers renamed the argument in 5.24.
        names = signature(self._model.model.forward).parameters
        self._cache = {"cache" if "cache" in names else "past_key_values": DynamicCache(config=self._model.config)}
        self._block = torch.tensor([list(tokens[prefix:])])
        self._rows = len(tokens) - prefix
        self._model(input_ids=torch.tensor([list(tokens[:prefix])]), use_cache=True, **self._cache)

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        """Logits [N, V]; :meth:`rewind` before the next."""
        logits: Tensor = self._model(input_ids=self._block, use_cache=True, **self._cache).logits[0]
        return logits

    def rewind(self) -> None:
        """Forget the block."""
        for cache in self._cache.values():
            cache.crop(-self._rows)
