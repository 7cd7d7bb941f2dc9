"""The losses of ZHZisZZ/dllm's trainers (read at ca176752), MDLM and BD3LM, from a checkout.

Their own `compute_loss` is called, on their own model class. What its module imports beside it (datasets, tyro,
metrics) is stood in for, since a loss needs none of it; their metrics are not counted against them.
"""

import sys
from collections.abc import Mapping
from types import ModuleType
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from peers.models import BLOCK
from peers.models import MASK
from peers.peer import Setup
from peers.zhz import module
from peers.zhz import qwen3

#: Modules that only data and metrics need, and the names taken of them.
_UNUSED: Mapping[str, tuple[str, ...]] = {
    "dllm.utils": (),
    "dllm.utils.configs": ("TrainingArguments",),
    "dllm.utils.data": ("prepend_bos",),
    "dllm.utils.collators": ("CollatorWrapper",),
    "dllm.core.trainers": (),
    "dllm.core.trainers.utils": ("NLLMetric", "PPLMetric", "OnEvaluateMetricsCallback"),
}


class _Drawn:
    """torch, as their module sees it, but for its next random numbers."""

    def __init__(self) -> None:
        self.next: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, *_shape: Any, **_options: Any) -> Tensor:
        """What was laid down for this call."""
        return self.next.pop(0)


class TheirLoss:
    """Their model, and the loss of one of their trainers.

    :param name: "mdlm" or "bd3lm".
    :raises Skip: if the checkout does not hold them.
    """

    def __init__(self, setup: Setup, name: str) -> None:
        assert setup.checkout is not None
        for place, names in _UNUSED.items():
            stand_in = sys.modules.setdefault(place, ModuleType(place))
            stand_in.__path__ = [str(setup.checkout.joinpath(*place.split(".")))]
            for item in names:
                setattr(stand_in, item, type(item, (), {}))
        code = module(setup, f"dllm.core.trainers.{name}")
        # BD3LM's trainer inherits from MDLM's, whose module has another `torch`.
        self._drawn = code.torch = _Drawn()
        kind = getattr(code, f"{name.upper()}Trainer")
        self.model = qwen3(setup).train()
        self.trainer: Any = kind.__new__(kind)
        self.trainer.__dict__ |= {
            "processing_class": SimpleNamespace(padding_side="right", mask_token_id=MASK),
            "right_shift_logits": False,
            "time_epsilon": 1e-3,
            "loss_weight_type": "scheduler",
            "loss_norm_type": "token",
            "scheduler": module(setup, "dllm.core.schedulers.alpha").LinearAlphaScheduler(),
            "block_size": BLOCK,
            "meter": SimpleNamespace(update=lambda **_: None),
            "accelerator": SimpleNamespace(unwrap_model=lambda model: model),
        }

    def __call__(self, tokens: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The loss of a batch, int64 [B, L] each, with the noise that our side draws from the seed."""
        luck = torch.Generator().manual_seed(seed)
        rows, length = tokens.shape
        shares = torch.rand(rows, 1, generator=luck, dtype=torch.float64)[:, 0]
        self._drawn.next = [shares, torch.rand(rows, length, generator=luck, dtype=torch.float64)]
        inputs = {"input_ids": tokens, "labels": labels, "attention_mask": torch.ones_like(tokens)}
        found: Tensor = self.trainer.compute_loss(self.model, inputs)
        return found
