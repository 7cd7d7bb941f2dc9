"""A model that says the mask id everywhere: every sampler ends, and no mask leaves it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load

from ..golden.cases import case_folders
from ..golden.cases import modes_of

CASES = [pytest.param(Case(folder), id=folder.name) for folder in case_folders() if folder.name != "diffusion_gemma"]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_the_mask_is_never_drawn(case: Case, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy and sampled, in every mode of every family."""
    model = CaseModels(case).get(**first_load(case))
    denoiser: Any = model.denoiser
    mask, head = denoiser.spec.mask_id, denoiser.logits

    def says_mask(hidden: Tensor, left: Tensor | None = None) -> Tensor:
        logits: Tensor = head(hidden, left)
        return logits.index_fill(-1, torch.tensor([mask]), 1000.0)

    monkeypatch.setattr(denoiser, "logits", says_mask)
    engine = model.engine()
    for mode, own in modes_of(case, model):
        config = SamplingConfig(mode=mode, max_new_tokens=6, temperature=temperature, seed=0, preset_options=own)
        engine.admit(Request([20, 21, 22], config, stop_ids=frozenset()))
        events = (event for _ in range(300) for event in engine.step())
        finish = next((event for event in events if isinstance(event, Finish)), None)
        assert finish is not None, mode
        assert engine.active == (), mode
        assert mask not in finish.tokens, mode
