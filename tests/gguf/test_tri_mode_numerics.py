"""The tri-mode default on llama.cpp: a clean row's bits do not depend on its company, so drafts are lossless."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError

from . import tri_mode

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

TYPES: list[dict[str, Any]] = [
    {"dtype": "float32"},
    {"dtype": "bfloat16"},
    {"dtype": "float16"},
    {"weights": "Q8_0", "dtype": "auto"},
    {"weights": "q4_0", "dtype": "float32"},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", TYPES, ids=lambda options: options.get("weights") or options["dtype"])
def test_clean_rows_are_invariant_and_so_drafts_lossless(files: tri_mode.Files, options: dict[str, Any]) -> None:
    """Bit-equal logits however many tokens a pass has and beside whom; speculative text is that of mode `ar`."""
    model = files.load("llama_cpp", **options)
    denoiser = model.denoiser
    assert denoiser.spec.numerics == "row-invariant"
    tokens = [5 + 11 * place % 250 for place in range(30)]
    alone = logits_of(denoiser, tokens, 1)
    for at_once, company in [(2, 0), (9, 0), (16, 0), (25, 0), (30, 0), (1, 3), (9, 3), (5, 2)]:
        assert torch.equal(logits_of(denoiser, tokens, at_once, company), alone), (at_once, company)
    for sampling in tri_mode.SAMPLING:
        requests = [
            [Request(prompt, SamplingConfig(mode=mode, max_new_tokens=50, **sampling)) for prompt in tri_mode.PROMPTS]
            for mode in ("ar", "speculative")
        ]
        expected, found = (model.engine().generate(part) for part in requests)
        assert [finish.tokens for finish in found] == [finish.tokens for finish in expected]


def logits_of(denoiser: Denoiser, tokens: list[int], at_once: int, company: int = 0) -> Tensor:
    """Logits of every token behind a prefix, `at_once` tokens a pass, with other rows that draft in each pass."""
    row, others = tri_mode.prefixed(denoiser, 244), [denoiser.open_row() for _ in range(company)]
    found = []
    for begin in range(0, len(tokens), at_once):
        part = tokens[begin : begin + at_once]
        segments = [tri_mode.clean(row, part, 244 + begin)]
        for index, other in enumerate(others):
            size = len(part) + (index == 2)
            segments.append(tri_mode.clean(other, [30 + index] * size, 0))
            segments.append(tri_mode.opened(other, denoiser.spec.mask_id, [size, size + 1], ((0, size),)))
        found.append(denoiser.forward(segments)[0])
        denoiser.freeze(row, len(part))
    for handle in [row, *others]:
        denoiser.close_row(handle)
    return torch.cat(found)


def test_where_rows_are_not_invariant_no_lossless_mode_is_served(
    files: tri_mode.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dllm_plugins.llama_cpp.tri_mode.fewest_of_equal_bits", lambda *_: None)
    model = files.load("llama_cpp")
    assert model.denoiser.spec.numerics == "approximate"
    assert model.denoiser.spec.modes == ("ar", "diffusion", "alternating")
    with pytest.raises(OptionError, match=r"'speculative' is not served .* mode 'ar'"):
        model.engine().generate([Request([5], SamplingConfig(mode="speculative"))])


def test_the_measurement_sees_a_difference(files: tri_mode.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without company, single rows differ from several, which is what it is for."""
    monkeypatch.setattr("dllm_plugins.llama_cpp.sharing._CUTS", {2: (1, 2, 10)})
    assert files.llama(dtype="bfloat16").spec.numerics == "approximate"


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 3, 8])
def test_taking_turns_is_lossless_on_any_backend(files: tri_mode.Files, length: int) -> None:
    """A pass verifies, the next one drafts: in torch the same text, in twice the passes less one."""
    model = files.load("torch")
    denoiser = model.denoiser
    for sampling in tri_mode.SAMPLING:
        config = SamplingConfig(mode="speculative", max_new_tokens=30, draft_length=length, **sampling)
        denoiser.spec = replace(denoiser.spec, mixes=True)
        expected = model.engine().generate([Request(prompt, config) for prompt in tri_mode.PROMPTS])
        denoiser.spec = replace(denoiser.spec, mixes=False)
        found = model.engine().generate([Request(prompt, config) for prompt in tri_mode.PROMPTS])
        for own, other in zip(found, expected, strict=True):
            assert own.tokens == other.tokens
            assert own.usage.passes["verify"] == other.usage.passes["verify"]
            assert own.usage.passes["draft"] in (own.usage.passes["verify"], own.usage.passes["verify"] - 1)


def test_embedded_clean_tokens_are_the_same_bits(files: tri_mode.Files) -> None:
    """Committed tokens come as rows that we look up in the file; llama.cpp looks others up itself."""
    for options in TYPES:
        denoiser = files.llama(**options)
        row = tri_mode.prefixed(denoiser, 20)
        plain = denoiser.forward([tri_mode.clean(row, [60, 61, 62], 20)])[0]
        again = denoiser.forward([tri_mode.clean(row, [60, 61], 20), Segment(row, [62], [25], behind=((0, 2),))])[0]
        assert torch.equal(again, plain[:2])
        denoiser.close()
