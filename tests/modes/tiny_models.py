"""Models without a checkpoint: random Qwen3 weights, and scripts that say what they are told."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.models import Model
from dllm_plugins.training.solvable import Letters

VOCABULARY, MASK, DELETE, SPLIT, EOS = 32, 31, 30, 29, 28
IDS = {"delete_token_id": DELETE, "split_token_id": SPLIT}


def spec(*modes: str, **fields: Any) -> ModelSpec:
    return ModelSpec(
        **{
            "name": "tiny",
            "vocabulary": VOCABULARY,
            "mask_id": MASK,
            "context": 128,
            "stop_ids": frozenset({EOS}),
            "block_length": 4,
            "draft_length": 0,
            "modes": modes,
            "draft_head": False,
            "cache": "exact",
            "numerics": "approximate",
            "ids": IDS,
            **fields,
        }
    )


def random_network(seed: int = 0) -> Any:
    """Large weights, so that it is sure of some tokens and not of others."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
    )
    network = Qwen3ForCausalLM(config).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def random_model(*modes: str, seed: int = 0, dtype: torch.dtype = torch.float32, **fields: Any) -> Model:
    """It on the block decoder, a fraction of whose pass is what transformers' forward takes.

    The samplers on transformers' forwards are decoded by tests/conformance and tests/families.
    """
    return Model("tiny", KernelDenoiser(random_network(seed).to(dtype), spec(*modes, **fields)), Letters())


class Scripted:
    """A denoiser that answers from `script`: (all tokens it was given, position) -> logits [V]."""

    def __init__(self, script: Callable[[dict[int, int], int], Tensor], made: ModelSpec) -> None:
        self.spec = made
        self.script = script
        self.rows = 0

    def open_row(self, prefix: Any = None, length: int = 0) -> int:
        self.rows += 1
        return self.rows

    def close_row(self, row: int) -> Any:
        return None

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        found = []
        for segment in segments:
            seen = dict(zip(segment.positions, segment.tokens, strict=True))
            rows = [self.script(seen, segment.positions[index]) for index in segment.wanted]
            found.append(torch.stack(rows) if rows else torch.empty(0, VOCABULARY))
        return found

    def freeze(self, row: int, count: int) -> None: ...

    def hold(self, row: int, indices: Sequence[int]) -> None: ...

    def release(self, row: int) -> None: ...

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        return hidden

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        return hidden, None


def says(token: int, logit: float = 5.0, **others: float) -> Tensor:
    """Logits that favour one token; others by `t<id>=logit`."""
    logits = torch.zeros(VOCABULARY)
    logits[token] = logit
    for name, value in others.items():
        logits[int(name[1:])] = value
    return logits


def scripted_model(script: Callable[[dict[int, int], int], Tensor], *modes: str, **fields: Any) -> Model:
    return Model("scripted", Scripted(script, spec(*modes, **fields)), Letters())
