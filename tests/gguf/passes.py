"""One pass over one text through llama.cpp's plain functions, to compare files with torch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.llama_cpp.library import library


def llama_logits(path: Path, ids: list[int], *, causal: bool) -> tuple[Tensor, bool]:
    """Logits of every position, float32 [n, V], with float32 keys; and whether the file's graph has memory."""
    lib: Any = library()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    assert model, f"llama.cpp does not load {path}"
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 512, len(ids), len(ids)
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = params.flash_attn_type = 0
    context = lib.llama_init_from_model(model, params)
    batch = lib.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for at, token in enumerate(ids):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, 1
        batch.seq_id[at][0] = 0
    try:
        lib.llama_set_causal_attn(context, causal)
        assert lib.llama_decode(context, batch) == 0
        size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        rows = np.ctypeslib.as_array(lib.llama_get_logits(context), shape=(len(ids), size)).copy()
        return torch.from_numpy(rows), bool(lib.llama_get_memory(context))
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)
        lib.llama_model_free(model)


def torch_logits(folder: Path, ids: list[int], *, causal: bool, family: str | None = None) -> Tensor:
    """The same of the folder, in float32 and transformers' own class."""
    model: Any = load_checkpoint(open_checkpoint(folder, family), torch.float32)
    seen = torch.ones(len(ids), len(ids), dtype=torch.bool)
    mask = torch.zeros(1, 1, len(ids), len(ids))
    if causal:
        mask = mask.masked_fill(~seen.tril(), torch.finfo(torch.float32).min)
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0]
    return found
