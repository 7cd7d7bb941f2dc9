"""I-DLM's sampler against an uncached loop, and whom it is meant for."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError

from ..golden.cases import CLONED


@pytest.fixture(scope="module")
def model() -> Model:
    """SDAR's random weights as a strictly causal, shifted model."""
    mask_id = json.loads((CLONED["sdar"] / "case.json").read_text())["mask_id"]
    return load_model(str(CLONED["sdar"] / "checkpoint"), family="idlm", mask_id=mask_id, dtype="float32")


@torch.inference_mode()
def uncached(model: Model, prompt: list[int], length: int, block: int, threshold: float) -> tuple[list[int], int]:
    """All of the text, causally, in every pass."""
    mask, network = model.denoiser.spec.mask_id, model.denoiser.model  # type: ignore[attr-defined]
    text, passes = [*prompt, *[mask] * length], 0
    for begin in range(len(prompt), len(text), block):
        positions = range(begin, min(begin + block, len(text)))
        while any(text[position] == mask for position in positions):
            logits = network(torch.tensor([text]), use_cache=False).logits[0]
            sure, best = logits.softmax(-1).max(-1)
            opened = [position for position in positions if text[position] == mask]
            top = max(opened, key=lambda position: float(sure[position - 1]))
            for position in opened:
                if position == top or sure[position - 1] >= threshold:
                    text[position] = int(best[position - 1])
            passes += 1
    return text[len(prompt) :], passes


@pytest.mark.parametrize(("length", "block", "threshold"), [(16, 4, 0.9), (13, 4, 0.3), (10, 1, 0.9), (12, 8, 0.1)])
@pytest.mark.parametrize("prompt", [[63], [63, 154, 142, 36, 97, 157, 53]])
def test_equals_an_uncached_loop(model: Model, prompt: list[int], length: int, block: int, threshold: float) -> None:
    """Tokens and passes."""
    config = SamplingConfig(max_new_tokens=length, block_length=block, threshold=threshold)
    finish = model.engine().generate([Request(prompt, config, stop_ids=frozenset())])[0]
    expected, passes = uncached(model, prompt, length, block, threshold)
    assert list(finish.tokens) == expected
    assert finish.usage.total_passes == passes
    assert finish.usage.cache == "exact"


def test_must_be_named(tmp_path: Path) -> None:
    """Its config says SDAR: by its name on the hub it is refused with the family to say."""
    folder = tmp_path / "models--yifanyu--I-DLM-8B" / "snapshots" / "0a1b2c"
    shutil.copytree(CLONED["sdar"] / "checkpoint", folder)
    with pytest.raises(CheckpointError, match="family='idlm'"):
        load_model(str(folder))
    assert load_model(str(folder), family="idlm", mask_id=206).denoiser.spec.modes[0] == "diffusion"
