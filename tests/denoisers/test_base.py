"""What a denoiser may offer beside the minimum."""

import copy
from collections.abc import Mapping
from typing import Any
from typing import cast

import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import completed
from dllm_plugins.prediction import GREEDY


class Minimal:
    """Forwards to another denoiser what the protocol asks for, and offers nothing else."""

    def __init__(self, inner: Denoiser) -> None:
        self.spec = inner.spec
        for name in ("open_row", "close_row", "forward", "freeze", "hold", "release", "logits", "draft_logits"):
            setattr(self, name, getattr(inner, name))


class Counting(Minimal):
    """Offers one thing more."""

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        return {kind: 2, "more": row}


def minimal(kind: type[Minimal], model: Model) -> Denoiser:
    return cast(Denoiser, kind(model.denoiser))


def test_defaults_of_a_minimal_denoiser(tiny: Model) -> None:
    """One call a pass, logits for every draw, nothing measured and nothing to give back."""
    whole = completed(minimal(Minimal, tiny))
    assert whole.rounds(7, "verify") == {"verify": 1}
    assert whole.unmask(torch.zeros(1, 64), [GREEDY]) is None
    assert whole.timings() == {}
    assert whole.form() is None
    whole.close()
    assert whole.spec is tiny.denoiser.spec
    assert copy.copy(whole).spec is whole.spec


def test_what_is_offered_stays(tiny: Model) -> None:
    """One that offers everything is itself; of another one only what is missing is filled in."""
    assert completed(tiny.denoiser) is tiny.denoiser
    assert completed(minimal(Counting, tiny)).rounds(7, "verify") == {"verify": 2, "more": 7}


def test_a_minimal_denoiser_decodes(tiny: Model) -> None:
    """The text of the full one, also where the time of every part is asked for; its model can be closed."""
    # Nobody knows what its passes cost, so that its layouts of drafts are fixed.
    for each in ({"mode": "ar"}, {"mode": "speculative", "draft_length": 2}, {"mode": "diffusion"}):
        options: dict[str, Any] = {**each, "max_new_tokens": 12}
        model = Model("minimal", minimal(Minimal, tiny), tiny.tokenizer)
        request = Request([1, 40, 41], SamplingConfig(**options))
        found, expected = (each.engine().generate([request])[0] for each in (model, tiny))
        assert found.tokens == expected.tokens
        assert found.usage.passes == expected.usage.passes
        model.close()
    timed = Request([1, 40, 41], SamplingConfig(mode="ar", max_new_tokens=2, stats=True))
    assert "forward" in (model.engine().generate([timed])[0].usage.parts or {})
