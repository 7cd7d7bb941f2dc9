"""A Qwen3 of random weights, as deep and wide as SmolLM2-135M, on the block decoder and on transformers' class."""

import copy
from typing import Any

import torch
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.native import NativeDenoiser
from passes import Contestant
from passes import Pass
from passes import drawn
from passes import filled
from passes import medians
from passes import predict

VOCABULARY = 49_152
SPEC = ModelSpec(
    name="random Qwen3",
    vocabulary=VOCABULARY,
    mask_id=VOCABULARY - 1,
    context=8192,
    stop_ids=frozenset(),
    block_length=16,
    draft_length=0,
    modes=("diffusion",),
    draft_head=False,
    cache="exact",
    numerics="approximate",
)


def network(dtype: torch.dtype) -> Qwen3ForCausalLM:
    """With norms of query and key heads; about 135 million weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    # transformers leaves its constructors and `to` untyped.
    model: Any = Qwen3ForCausalLM(config)
    found: Qwen3ForCausalLM = model.to(dtype).eval()
    return found


def whole_block(denoiser: Denoiser, rows: int, prefix: int) -> Pass:
    """A pass over `rows` positions that see one another, behind a frozen prefix."""
    tokens = drawn(prefix + rows, VOCABULARY)
    row = filled(denoiser, tokens[:prefix])
    places = range(prefix, prefix + rows)
    return predict(denoiser, [Segment(row, tokens[prefix:], places, noisy=True, causal=False, wanted=range(rows))])


def compared(dtype: torch.dtype, rows: int, prefix: int, rounds: int) -> tuple[float, float, bool]:
    """Milliseconds of the block decoder and of transformers' class, and whether both choose the same tokens."""
    model = network(dtype)
    native = whole_block(NativeDenoiser(copy.deepcopy(model), SPEC), rows, prefix)
    ours = whole_block(KernelDenoiser(model, SPEC), rows, prefix)
    found = medians({"ours": Contestant(ours), "native": Contestant(native)}, rounds)
    return found["ours"], found["native"], torch.equal(ours().argmax(-1), native().argmax(-1))
