"""Every family's weights in transformers' own class give the logits of the original implementation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint

from ..golden.cases import case_folders

CASES = case_folders()
NAMED = {"open_dcoder": "open_dcoder"}


def visible(case: dict[str, Any], key: str, attention: str, length: int) -> Tensor:
    """Who sees whom, bool [length, length]."""
    causal = torch.ones(length, length).tril().bool()
    mode = (case.get("logits_modes") or {}).get(key)
    if mode == "causal" or attention == "causal, reordered":
        return causal
    if case.get("logits_block_size"):
        block = torch.arange(length) // case["logits_block_size"]
        blocks: Tensor = block[None, :] <= block[:, None]
        return blocks
    return torch.ones(length, length).bool()


def run(model: Any, case: dict[str, Any], attention: str, golden: dict[str, Tensor], key: str) -> tuple[Tensor, Tensor]:
    """Our logits, and which rows count; both [batch, length, ...]."""
    ids = golden[f"{key}.input_ids"]
    real = golden.get(f"{key}.attention_mask", torch.ones_like(ids)).bool()
    options: dict[str, Any] = {}
    if f"{key}.position_ids" in golden:
        options["position_ids"] = golden[f"{key}.position_ids"]
    if f"{key}.decoder_input_ids" in golden:
        decoder = golden[f"{key}.decoder_input_ids"]
        return model(input_ids=ids, decoder_input_ids=decoder).logits, torch.ones_like(decoder).bool()
    if attention == "own":
        return model(ids, attention_mask=real.long()).logits, real
    seen = visible(case, key, attention, ids.shape[1]) & real[:, None, :]
    seen |= torch.eye(ids.shape[1]).bool()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    return model(ids, attention_mask=mask, use_cache=False, **options).logits, real


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_logits_of_the_reference(folder: Path) -> None:
    """Within 1e-4 at every real position of every recorded sequence."""
    case = json.loads((folder / "case.json").read_text())
    golden = load_file(folder / "logits.safetensors")
    checkpoint = open_checkpoint(folder / "checkpoint", NAMED.get(folder.name))
    model = load_checkpoint(checkpoint)
    recorded = sorted(name.removesuffix(".logits") for name in golden if name.endswith(".logits"))
    assert len(recorded) >= 3
    with torch.inference_mode():
        for key in recorded:
            found, real = run(model, case, checkpoint.layout.attention, golden, key)
            expected = golden[f"{key}.logits"]
            worst = float((found - expected)[real].abs().max())
            assert worst <= 1e-4, f"{key}: {worst}"
