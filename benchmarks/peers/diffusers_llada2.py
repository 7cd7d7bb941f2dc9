"""diffusers' LLaDA2Pipeline, on two random checkpoints whose blocks see themselves and what is before them.

The pipeline brings no model class: it calls whatever it is given with all ids up to the end
of the newest block, a mask of one dimension per row and positions, wants logits [1, ids, V],
and leaves it to the model to turn that mask into its own. So both sides run transformers'
class here, theirs behind the mask of its blocks. The pipeline has no cache and forwards
everything in every pass; ours forwards the newest block on a cached prefix. Under this mask
the two are the same.

One checkpoint has LLaDA2's own layout, a mixture of experts. The other is dense, in SDAR's
layout, which our block decoder computes; the rule is the same, so the tokens are, too.
"""

import json
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from peers import models
from peers.peer import Contest
from peers.peer import Peer
from peers.peer import Setup
from peers.peer import Skip
from peers.peer import decode
from peers.peer import prompt_ids
from peers.peer import sampled
from peers.peer import weights_of

#: As LLaDA2.0's own generate has them.
STEPS, THRESHOLD = 32, 0.95
NOTE = (
    "the pipeline has no cache: every pass forwards prompt and answer up to the block's end, with logits of all of it; "
    "it makes one more pass behind a block that is committed before its steps are used up"
)


@dataclass(frozen=True, slots=True)
class Experts:
    """The size of a checkpoint in LLaDA2's layout; the first layer is dense.

    :param inner: width of one expert.
    :param dense: width of the first layer's product.
    """

    vocabulary: int = models.SHAPE.vocabulary
    width: int = models.SHAPE.width
    heads: int = models.SHAPE.heads
    kv_heads: int = models.SHAPE.kv_heads
    layers: int = 8
    experts: int = 64
    chosen: int = 8
    groups: int = 8
    inner: int = 96
    dense: int = models.SHAPE.inner

    @property
    def mask(self) -> int:
        """The mask's id, the last one."""
        return self.vocabulary - 1


def llada2_tensors(size: Experts) -> dict[str, Tensor]:
    """Random weights under LLaDA2's names; no special id is ever the likeliest."""
    generator = torch.Generator().manual_seed(0)
    head, small = size.width // size.heads, (2 * size.layers) ** -0.5

    def drawn(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        found: Tensor = torch.randn(rows, columns, generator=generator) * scale / columns**0.5
        return found

    def mlp(inner: int) -> dict[str, Tensor]:
        return {
            "gate_proj": drawn(inner, size.width),
            "up_proj": drawn(inner, size.width),
            "down_proj": drawn(size.width, inner, small),
        }

    found = {"model.norm": torch.full((size.width,), models.HEAD_SCALE)}
    for name in ("model.word_embeddings", "lm_head"):
        found[name] = torch.randn(size.vocabulary, size.width, generator=generator)
        found[name][[models.EOS, models.PAD, models.BOS, size.mask]] *= models.SPECIAL_SCALE
    for number in range(size.layers):
        begin = f"model.layers.{number}"
        found |= {f"{begin}.{name}": torch.ones(size.width) for name in ("input_layernorm", "post_attention_layernorm")}
        found |= {
            f"{begin}.attention.{name}_layernorm": torch.full((head,), models.SHARPNESS) for name in ("query", "key")
        }
        found[f"{begin}.attention.query_key_value"] = drawn((size.heads + 2 * size.kv_heads) * head, size.width)
        found[f"{begin}.attention.dense"] = drawn(size.width, size.heads * head, small)
        parts = {"mlp": size.dense}
        if number:
            found[f"{begin}.mlp.gate"] = drawn(size.experts, size.width)
            parts = {f"mlp.experts.{expert}": size.inner for expert in range(size.experts)}
            parts["mlp.shared_experts"] = size.inner
        found |= {f"{begin}.{part}.{name}": weight for part in parts for name, weight in mlp(parts[part]).items()}
    biases = {
        f"model.layers.{number}.mlp.gate.expert_bias": torch.zeros(size.experts) for number in range(1, size.layers)
    }
    return {f"{name}.weight": weight for name, weight in found.items()} | biases


def llada2_folder(folder: Path, size: Experts) -> Path:
    """A checkpoint as LLaDA2.0-mini is stored, of this size."""
    config = {
        "architectures": ["LLaDA2MoeModelLM"],
        "model_type": "llada2_moe",
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.dense,
        "moe_intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "first_k_dense_replace": 1,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.width // size.heads,
        "num_experts": size.experts,
        "num_experts_per_tok": size.chosen,
        "num_shared_experts": 1,
        "n_group": size.groups,
        "topk_group": size.groups // 2,
        "routed_scaling_factor": 2.5,
        "score_function": "sigmoid",
        "moe_router_enable_expert_bias": True,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.5,
        "rope_theta": 600_000,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "max_position_embeddings": models.CONTEXT,
        "tie_word_embeddings": False,
        "mask_token_id": size.mask,
        "eos_token_id": models.EOS,
        "pad_token_id": models.PAD,
    }
    return models.written(folder, config, llada2_tensors(size))


def sdar_folder(folder: Path) -> Path:
    """The dense Qwen3 of the other comparisons, as SDAR stores its own."""
    file = models.qwen3_folder(folder) / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"architectures": ["SDARForCausalLM"], "model_type": "sdar", "block_size": models.BLOCK}
    file.write_text(json.dumps(config | {"mask_token_id": models.MASK}), encoding="utf-8")
    return folder


class BlockCausal(torch.nn.Module):
    """What the pipeline calls: transformers' class behind the mask of its blocks, made once per length."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._masks: dict[int, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the pipeline puts its tensors."""
        return self.model.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Any:
        """Logits of all ids [1, N], in an output's `logits` [1, N, V]; nothing is hidden by `attention_mask` [1, N]."""
        length = input_ids.shape[1]
        if length not in self._masks:
            block = torch.arange(length) // models.BLOCK
            mask = torch.zeros(1, 1, length, length, dtype=self.model.dtype)
            self._masks[length] = mask.masked_fill_(block[None, :] > block[:, None], torch.finfo(mask.dtype).min)
        return self.model(
            input_ids=input_ids, attention_mask=self._masks[length], position_ids=position_ids, use_cache=False
        )


def contest(setup: Setup, mask: int, config: SamplingConfig, note: str, **options: Any) -> Contest:
    """Both sides over the checkpoint in the setup's folder.

    :param mask: its mask id.
    :param config: our options.
    :param options: of `load_model`.
    :raises Skip: without diffusers.
    """
    if find_spec("diffusers") is None:
        raise Skip("diffusers is not installed; pip install diffusers")
    diffusers: Any = import_module("diffusers")
    theirs = load_checkpoint(open_checkpoint(setup.folder), setup.dtype, {"": "cpu"})
    pipeline = diffusers.LLaDA2Pipeline(model=BlockCausal(theirs), scheduler=diffusers.BlockRefinementScheduler())
    pipeline.set_progress_bar_config(disable=True)
    prompt = prompt_ids(setup.size.prompt, mask)

    def sample() -> Any:
        return pipeline(
            input_ids=torch.tensor([prompt]),
            gen_length=setup.size.new,
            block_length=models.BLOCK,
            num_inference_steps=STEPS,
            threshold=THRESHOLD,
            editing_threshold=None,
            eos_early_stop=False,
            mask_token_id=mask,
            output_type="seq",
        ).sequences

    ours = load_model(str(setup.folder), dtype=setup.dtype_name, device="cpu", **options)
    return Contest(
        ours=lambda: decode(ours, prompt, config, frozenset()),
        theirs=sampled(pipeline.model, sample, 0),
        weights=weights_of(theirs),
        setting=f"blocks of {models.BLOCK}, {STEPS} steps, threshold {THRESHOLD}, greedy, no editing",
        note=note,
    )


def whole_blocks(setup: Setup) -> None:
    """Refuse an answer that ends inside a block: the pipeline hides the rest of it from the model, LLaDA2 does not.

    :raises Skip: naming the size.
    """
    if (setup.size.prompt + setup.size.new) % models.BLOCK:
        raise Skip(f"size {setup.size} ends inside a block of {models.BLOCK}; choose one whose sum is a multiple of it")


def llada2(setup: Setup, size: Experts = Experts()) -> Contest:
    """LLaDA2's layout and sampler, through transformers' class on both sides."""
    whole_blocks(setup)
    llada2_folder(setup.folder, size)
    config = SamplingConfig(
        mode="llada2.0",
        max_new_tokens=setup.size.new,
        block_length=models.BLOCK,
        steps=STEPS,
        threshold=THRESHOLD,
    )
    note = f"{NOTE}; both run transformers' Glm4Moe, whose experts round by who shares their products"
    return contest(setup, size.mask, config, note, preset="llada2.0")


def dense(setup: Setup) -> Contest:
    """A dense model behind the same pipeline; ours through the block decoder, by SDAR's dynamic rule."""
    whole_blocks(setup)
    sdar_folder(setup.folder)
    config = SamplingConfig(
        mode="sdar",
        max_new_tokens=setup.size.new,
        block_length=models.BLOCK,
        steps=STEPS,
        threshold=THRESHOLD,
    )
    return contest(setup, models.MASK, config, NOTE, backend="kernels")


PEERS = (Peer("diffusers_llada2", None, llada2), Peer("diffusers_llada2_dense", None, dense))
