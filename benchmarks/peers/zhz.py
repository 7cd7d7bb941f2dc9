"""ZHZisZZ/dllm (read at ca176752): its MDLM, BD3LM and Fast-dLLM samplers, from a checkout.

The packages' own `__init__` files import what only training needs (datasets, peft, tyro), so
the modules are loaded past them. It is written for transformers 4.57; what its files miss
in version 5 is put back here, from outside. The samplers get `torch.inference_mode` on top
of their own `no_grad`, and one thread pool is shared by both sides.
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from inspect import signature
from types import ModuleType
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from peers.loading import Cache
from peers.loading import fast_dllm
from peers.loading import filled
from peers.loading import llada_config
from peers.models import BLOCK
from peers.models import BOS
from peers.models import EOS
from peers.models import MASK
from peers.models import PAD
from peers.models import llada_folder
from peers.models import qwen3_folder
from peers.peer import Contest
from peers.peer import Peer
from peers.peer import Setup
from peers.peer import Skip
from peers.peer import decode
from peers.peer import prompt_ids
from peers.peer import sampled
from peers.peer import weights_of

#: Packages whose `__init__` is passed by.
BARE = (
    "dllm",
    "dllm.core",
    "dllm.pipelines",
    "dllm.pipelines.a2d",
    "dllm.pipelines.fastdllm",
    "dllm.pipelines.llada",
    "dllm.pipelines.llada.models",
)
MASKS = "transformers.modeling_attn_mask_utils"
MDLM_NOTE = "theirs computes logits of the whole canvas, ours of open positions"
BD3LM_NOTE = (
    "theirs encodes the whole text before a block again, with its logits, and copies its cache in every pass; "
    "ours freezes a block's keys once, in the pass that first looks at the next one"
)
TOKENIZER = SimpleNamespace(mask_token_id=MASK, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)


def module(setup: Setup, name: str) -> Any:
    """A module of the checkout.

    :raises Skip: if the checkout does not hold it, or it does not load here.
    """
    assert setup.checkout is not None
    for bare in BARE:
        place = setup.checkout.joinpath(*bare.split("."))
        if not place.is_dir():
            raise Skip(f"{place} does not exist; give the top folder of a checkout of ZHZisZZ/dllm")
        package = sys.modules.setdefault(bare, ModuleType(bare))
        package.__path__ = [str(place)]
    if find_spec(MASKS) is None:
        sys.modules[MASKS] = _masks()
    try:
        return import_module(name)
    except ImportError as error:
        raise Skip(f"{name} of {setup.checkout} does not load: {error}") from error


def _masks() -> ModuleType:
    """What transformers 5 no longer has: padding as a float mask [B, 1, T, T]."""
    found = ModuleType(MASKS)
    found.__spec__ = ModuleSpec(MASKS, None)

    def prepare(mask: Tensor, dtype: torch.dtype, tgt_len: int | None = None) -> Tensor:
        rows, length = mask.shape
        hidden = mask[:, None, None, :].expand(rows, 1, tgt_len or length, length) == 0
        return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)

    found._prepare_4d_attention_mask = prepare  # type: ignore[attr-defined]
    return found


def qwen3(setup: Setup) -> Any:
    """Their Qwen3 with the folder's weights."""
    code = module(setup, "dllm.pipelines.a2d.models.qwen3.modeling_qwen3")
    config = code.A2DQwen3Config.from_pretrained(setup.folder, trust_remote_code=False)
    config._attn_implementation = "sdpa"
    model = code.A2DQwen3LMHeadModel(config)
    if "cache" in signature(type(model).forward).parameters:
        _rename(model.model, "cache", "past_key_values")
    for layer in model.model.layers:
        if not hasattr(layer, "attention_type"):
            layer.attention_type = "full_attention"
        if "cache" in signature(type(layer).forward).parameters:
            _rename(layer, "past_key_values", "cache")
    return filled(model, setup)


def _rename(called: torch.nn.Module, given: str, wanted: str) -> None:
    """Calls with the one keyword become calls with the other: transformers 5.24 renamed it."""
    forward: Callable[..., Any] = called.forward

    def renamed(*places: Any, **names: Any) -> Any:
        if given in names:
            names[wanted] = names.pop(given)
        return forward(*places, **names)

    called.forward = renamed


def llada(setup: Setup) -> Any:
    """Their LLaDA for Fast-dLLM with the folder's weights."""
    shapes = module(setup, "dllm.pipelines.fastdllm.llada.models.configuration_llada")
    code = module(setup, "dllm.pipelines.fastdllm.llada.models.modeling_llada")
    return filled(code.FastdLLMLLaDAModelLM(llada_config(shapes.FastdLLMLLaDAConfig, setup.folder)), setup)


def mdlm(setup: Setup) -> Contest:
    """The whole canvas, prompt included, every pass; no cache on either side."""
    return tiny_a2d(setup, "mdlm", MDLM_NOTE)


def bd3lm(setup: Setup) -> Contest:
    """Blocks that see what is before them, behind a cached prefix."""
    return tiny_a2d(setup, "bd3lm", BD3LM_NOTE)


def tiny_a2d(setup: Setup, name: str, note: str) -> Contest:
    """Two positions a pass, the likeliest of a block of 32 first.

    :raises Skip: see :func:`module`.
    """
    samplers = module(setup, "dllm.core.samplers")
    qwen3_folder(setup.folder)
    theirs = qwen3(setup)
    sampler = getattr(samplers, f"{name.upper()}Sampler")(model=theirs, tokenizer=TOKENIZER)
    options = {"max_new_tokens": setup.size.new, "block_size": BLOCK, "steps": setup.size.steps, "temperature": 0.0}
    config = SamplingConfig(
        mode=name,
        max_new_tokens=setup.size.new,
        block_length=BLOCK,
        steps=setup.size.steps,
    )
    prompt = prompt_ids(setup.size.prompt, MASK)
    ours = load_model(
        str(setup.folder), backend="kernels", dtype=setup.dtype_name, device="cpu", preset=name, mask_id=MASK
    )
    stops = frozenset({EOS}) if name == "bd3lm" else frozenset[int]()
    return Contest(
        ours=lambda: decode(ours, prompt, config, stops),
        theirs=sampled(theirs, lambda: sampler.sample([list(prompt)], **options), padded(setup, name)),
        weights=weights_of(theirs),
        setting=f"blocks of {BLOCK}, {setup.size.steps} passes, greedy, low confidence",
        note=note,
    )


def padded(setup: Setup, name: str) -> int:
    """Where their answer begins: BD3LM fills prompts up on the left, to whole blocks."""
    return -(-setup.size.prompt // BLOCK) * BLOCK if name == "bd3lm" else setup.size.prompt


def fast(cache: Cache | None, setup: Setup) -> Contest:
    """Their copy of Fast-dLLM: two positions a pass, the likeliest of a block of 32 first.

    :raises Skip: see :func:`module`.
    """
    code = module(setup, "dllm.pipelines.fastdllm.llada.sampler")
    llada_folder(setup.folder)
    theirs = llada(setup)
    sampler = code.FastdLLMLLaDASampler(model=theirs, tokenizer=TOKENIZER)
    options = {
        "max_new_tokens": setup.size.new,
        "block_size": BLOCK,
        "steps": setup.size.steps,
        "temperature": 0.0,
        "use_cache": cache,
    }
    prompt = prompt_ids(setup.size.prompt, MASK)
    return Contest(
        ours=fast_dllm(setup, prompt, cache),
        theirs=sampled(theirs, lambda: sampler.sample([list(prompt)], **options), setup.size.prompt),
        weights=weights_of(theirs),
        setting=f"blocks of {BLOCK}, {setup.size.steps} passes, cache {cache}, greedy, low confidence",
        note="theirs computes logits of every row it forwards, ours of open positions; its confidence is float32",
    )


PEERS = (
    Peer("zhz_mdlm", "zhz", mdlm),
    Peer("zhz_bd3lm", "zhz", bd3lm),
    Peer("zhz_fast_none", "zhz", partial(fast, None)),
    Peer("zhz_fast_prefix", "zhz", partial(fast, "prefix")),
    Peer("zhz_fast_dual", "zhz", partial(fast, "dual")),
)
