"""The default model's fast path and its plain one say the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import kernel
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request

PROMPTS = ([1, 40, 41, 42], [1, 77], [1, *range(30, 60)])


@pytest.fixture(scope="module")
def pair(tiny_folder: Path) -> tuple[Model, Model]:
    """The tiny model in float32 on both backends."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    options: dict[str, Any] = {"base": tiny_folder, "denoiser": denoiser, "dtype": "float32", "device": "cpu"}
    return load_model(backend="kernels", **options), load_model(backend="torch", **options)


def _best() -> Any:
    return kernel(KERNEL, torch.device("cpu"), torch.float32, {"hidden": 64, "intermediate": 96, "head_dim": 16})


def test_each_backend_is_what_was_asked_for(pair: tuple[Model, Model], tiny: Model) -> None:
    for model, plain in ((pair[0], False), (pair[1], True), (tiny, False)):
        assert isinstance(model.denoiser, TriModeDenoiser)
        assert model.denoiser.spec.numerics == "row-invariant"
        # Without a compiler and oneDNN's operators the plain one is the best.
        assert (type(model.denoiser.decoder) is PlainDecoder) == (plain or _best() is PlainDecoder)


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_same_tokens_in_the_same_passes(pair: tuple[Model, Model], mode: str, temperature: float) -> None:
    """In float32, alone and as a batch of unequal rows."""
    seed = 5 if temperature else None
    config = SamplingConfig(mode=mode, max_new_tokens=40, temperature=temperature, seed=seed)
    requests = [Request(prompt, config) for prompt in PROMPTS]
    fast, plain = (model.engine().generate(requests) for model in pair)
    for own, other in zip(fast, plain, strict=True):
        assert own.tokens == other.tokens
        assert own.usage.passes == other.usage.passes
        assert own.usage.rows == other.usage.rows


def test_same_logits(pair: tuple[Model, Model]) -> None:
    """Clean and open rows behind a prefix, with known tokens on their left and without."""
    left = torch.tensor([[41, 40], [42, -1], [-1, -1]])
    found = []
    for model in pair:
        denoiser = model.denoiser
        mask = denoiser.spec.mask_id
        row = denoiser.open_row()
        denoiser.forward([Segment(row, range(30, 50), range(20))])
        denoiser.freeze(row, 20)
        clean = Segment(row, [7, 8, 9], range(20, 23), wanted=range(3))
        opened = Segment(row, [mask] * 3, range(22, 25), noisy=True, causal=False, behind=((0, 3),), wanted=range(3))
        hidden = denoiser.forward([clean, opened])
        ids = denoiser.draft_logits(hidden[1], left)[1]
        drafts = denoiser.draft_logits(hidden[1], left)[0]
        found.append((denoiser.logits(hidden[0]), denoiser.logits(hidden[1], left), drafts, ids))
        denoiser.close_row(row)
    for fast, plain in zip(*found, strict=True):
        if fast is None or plain is None:
            assert fast is plain
        else:
            torch.testing.assert_close(fast, plain, atol=1e-4, rtol=1e-4)
