"""Random decoders in transformers' classes, and one pass of ours over them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers import LlamaForCausalLM
from transformers import Qwen2Config
from transformers import Qwen2ForCausalLM
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import KeyValues
from dllm_kernels.decoder import Part
from dllm_kernels.decoder.plain import PackedDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.onednn import packing_fault

KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
#: Widths that are no multiple of anything, groups of 1 to 5 query heads, tied and untied heads.
SHAPES: list[dict[str, Any]] = [
    {"hidden_size": 36, "intermediate_size": 50, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10},
    {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16},
    {"hidden_size": 40, "intermediate_size": 33, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 8},
]
IMPLEMENTATIONS: list[Any] = [PlainDecoder, PackedDecoder]


def runs(implementation: Any, dtype: torch.dtype) -> bool:
    """Whether this machine computes it: without AVX-512 or its like torch packs no bfloat16."""
    return implementation is not PackedDecoder or packing_fault(dtype) is None


def skip_unless_run(implementation: Any, dtype: torch.dtype) -> None:
    """Where it cannot run, the dispatch refuses it with the reason that the skipped test tells."""
    if not runs(implementation, dtype):
        pytest.skip(f"{implementation.__name__} {packing_fault(dtype)}")


BIASED: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {"attention_bias": True},
}


def network(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0, **sizes: Any) -> Any:
    """A random model whose norms and biases matter."""
    config_class, model_class = KINDS[kind]
    torch.manual_seed(seed)
    fields = {"vocab_size": 71, "num_hidden_layers": 2, "max_position_embeddings": 1024, **SHAPES[0], **sizes}
    model = model_class(config_class(**fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1) / 2, std=0.2)
    return model.to(dtype)


def logits_of(model: Any, tokens: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
    """What transformers says, [N, V]; seen bool [N, N]."""
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)
    with torch.inference_mode():
        found: Tensor = model(tokens[None], attention_mask=mask[None, None], position_ids=positions[None]).logits[0]
    return found


def row_of(decoder: Decoder) -> KeyValues:
    """An empty row."""
    store = decoder.new_store()
    assert isinstance(store, KeyValues)
    return store


def run(
    decoder: Decoder,
    rows: Sequence[tuple[KeyValues, Tensor, Tensor, Tensor]],
    noisy: Tensor | None = None,
    *,
    wanted: Sequence[int] | None = None,
) -> list[Tensor]:
    """One pass: a store, tokens, positions and who sees whom, each; logits of each.

    Who sees whom is bool [n, kept + n], or bool [n, n]; the kept ones are seen anyway.

    :param wanted: of which rows logits are returned; by default of all.
    """
    parts, begin = [], 0
    for store, tokens, _, seen in rows:
        store.reserve(len(tokens))
        parts.append(Part(store, slice(begin, begin + len(tokens)), seen[:, -len(tokens) :]))
        begin += len(tokens)
    hidden = decoder.forward(torch.cat([row[1] for row in rows]), torch.cat([row[2] for row in rows]), parts, noisy)
    return [decoder.logits(hidden[parts[row].rows]) for row in (range(len(parts)) if wanted is None else wanted)]


def drawn(length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 71, (length,), generator=torch.Generator().manual_seed(seed))


def parts(count: int, at_once: int, most: int | None = None) -> list[int]:
    """How many of `count` tokens each pass takes: `at_once`.

    :param most: how many passes take so few, half of them at either end; what is between is one pass.
    """
    if most is not None and most * at_once < count:
        ends = [at_once] * (most // 2)
        return [*ends, count - 2 * sum(ends), *ends]
    whole, left = divmod(count, at_once)
    return [at_once] * whole + [left] * bool(left)


def blocks(begin: int, end: int, size: int = 5) -> Tensor:
    """Block-causal: bool [end - begin, end]."""
    return torch.arange(end)[None] // size <= torch.arange(begin, end)[:, None] // size
