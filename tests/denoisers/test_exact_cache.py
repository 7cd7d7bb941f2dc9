"""Invariant 1: cached == full recompute under the same mask."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dllm_plugins import Engine
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.training.checkpoint import load_weights
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk

PROMPT = [1, 40, 41, 42, 43, 44, 45, 46, 60, 61, 62]


class Recorder:
    """A denoiser that remembers each pass: frozen tokens, segments, hidden states."""

    def __init__(self, inner: TriModeDenoiser) -> None:
        self.inner = inner
        self.spec = inner.spec
        self.hold, self.release = inner.hold, inner.release
        self.frozen: list[int] = []
        self.passes: list[tuple[list[int], list[Segment], list[Tensor]]] = []

    def open_row(self, prefix: Any = None, length: int = 0) -> int:
        return self.inner.open_row(prefix, length)

    def close_row(self, row: int) -> Any:
        return self.inner.close_row(row)

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        hidden = self.inner.forward(segments)
        self.passes.append((list(self.frozen), list(segments), hidden))
        return hidden

    def freeze(self, row: int, count: int) -> None:
        self.frozen += list(self.passes[-1][1][0].tokens)[:count]
        self.inner.freeze(row, count)

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        return self.inner.logits(hidden, left)

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.inner.draft_logits(hidden, left)


def record(model: Model, config: SamplingConfig) -> Recorder:
    """Decode PROMPT and return what was forwarded."""
    assert isinstance(model.denoiser, TriModeDenoiser)
    recorder = Recorder(model.denoiser)
    Engine(recorder, model.tokenizer, plugins.modes()).generate([Request(PROMPT, config)])
    return recorder


def dense_mask(frozen: int, segments: Sequence[Segment]) -> Tensor:
    """Who sees whom, from the rules of the geometry alone: open rows see their prefix and their canvas."""
    kinds = [(-1, True, place) for place in range(frozen)]
    for number, segment in enumerate(segments):
        shift = 1 if segment.noisy else 0
        kinds += [(number, not segment.noisy, place + shift) for place in segment.positions]
    count = len(kinds)
    mask = torch.zeros(count, count, dtype=torch.bool)
    clean_end = len(segments[0].tokens) + frozen
    for i, (group, clean, place) in enumerate(kinds):
        limit = clean_end if group <= 0 else frozen + segments[group].behind[0][1]
        for j, (other, other_clean, other_place) in enumerate(kinds):
            in_prefix = j < limit and other <= 0
            if clean:
                mask[i, j] = other_clean and other_place <= place
            elif other <= 0:
                mask[i, j] = in_prefix
            else:
                mask[i, j] = other == group or other_clean
    return mask


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion"])
def test_cached_passes_equal_a_full_recompute(tiny: Model, tiny_folder: Path, mode: str) -> None:
    """Every hidden state of every pass equals one dense forward of the training code, within 1e-4."""
    options = {"rule": "random", "steps": 4, "seed": 3} if mode == "diffusion" else {}
    recorder = record(tiny, SamplingConfig(mode=mode, max_new_tokens=24, **options))
    base = load_llama(tiny_folder, torch.float32)
    low_rank = LowRankDenoiser(base.shape, 4, 24, torch.zeros(64))
    load_weights(low_rank, tiny_folder.parent / "denoiser.safetensors", base)
    trunk = Trunk(base, 128)
    embedding = torch.cat([base.embedding, low_rank.weights["mask_embedding"][None].detach()])
    assert len(recorder.passes) > 3
    most = max(len(segments) for _, segments, _ in recorder.passes)
    assert most == {"ar": 1, "speculative": 4, "diffusion": 3}[mode]
    for frozen, segments, hidden in recorder.passes:
        tokens = torch.tensor(frozen + [token for segment in segments for token in segment.tokens])
        places = torch.tensor([*range(len(frozen)), *(place for segment in segments for place in segment.positions)])
        gate = [0.0] * len(frozen) + [SCALE * segment.noisy for segment in segments for _ in segment.tokens]
        mask = dense_mask(len(frozen), segments)[None, None]
        with torch.no_grad():
            full, _ = trunk.forward(
                embedding[tokens][None], places[None], mask, None, low_rank, torch.tensor(gate)[None, :, None]
            )
        start = len(frozen)
        for segment, found in zip(segments, hidden, strict=True):
            wanted = [start + index for index in segment.wanted]
            torch.testing.assert_close(found, full[0, wanted], atol=1e-4, rtol=0)
            start += len(segment.tokens)


def test_ar_equals_transformers_in_float32(tiny: Model, tiny_folder: Path) -> None:
    """Mode `ar` is the base model: the same tokens as transformers' own greedy generate."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    for prompt in ([5], [7, 8, 9], PROMPT):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0, len(prompt) :].tolist()
        found = tiny.engine().generate([Request(prompt, SamplingConfig(mode="ar", max_new_tokens=40))])[0]
        stop = [2] if found.reason == "eos" else []
        assert [*found.tokens, *stop] == expected
