"""Arguments of the references that golden data sets seldom: defaults, limits, unhidden padding, rewriting."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.check import translate
from dllm_plugins.conformance.play import Play
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from tests.modes import shifted
from tests.modes.tiny_models import MASK
from tests.modes.tiny_models import says
from tests.modes.tiny_models import scripted_model

from ..golden.cases import CLONED

PADDED = {"prompts": [[3], [4, 5]], "input_ids": [[9, 3], [4, 5]]}


def play(case: str, sampler: str, inputs: dict[str, Any] | None = None, **params: Any) -> Play:
    """A setting of our own, translated."""
    raw = {"name": "own", "sampler": sampler, "params": params, "inputs": inputs or {"prompts": [[3, 4, 5]]}}
    return translate(Case(CLONED[case]), Setting(raw))


def config(case: str, sampler: str, **params: Any) -> SamplingConfig:
    """The config of its first row."""
    return play(case, sampler, **params).requests[0].config


def test_absent_arguments_take_the_references_defaults() -> None:
    """128 tokens; LLaDA in one block of 128 passes, SDAR in blocks of 8 passes."""
    whole = config("llada_dense", "LLaDA generate")
    assert (whole.max_new_tokens, whole.block_length, whole.steps) == (128, 128, 128)
    blocks = config("sdar", "SDAR block_diffusion_generate")
    assert (blocks.block_length, blocks.steps, blocks.threshold) == (8, 8, 0.85)
    assert blocks.max_new_tokens == 136 - 3
    assert blocks.preset_options == {"remasking": "low_confidence_dynamic", "rewrite": True}


def test_limits_beyond_ours_are_translated() -> None:
    """Above 1 no threshold is reached, at 0 all are; guidance below 0 is off."""
    name = "Fast-dLLM v1 generate_with_dual_cache"
    assert config("llada_dense", name, threshold=1.5).threshold == 1.0
    assert 0 < (config("llada_dense", name, threshold=0.0).threshold or 0) < 1e-9
    assert config("llada_dense", name, threshold=0.5).approximate_cache == "dual"
    assert config("sdar", "SDAR block_diffusion_generate", confidence_threshold=1.2).threshold == 1.0
    assert config("llada_dense", "LLaDA generate", cfg_scale=-1.0).guidance is None


@pytest.mark.parametrize("sampler", ["LLaDA generate", "Dream diffusion_generate", "Open-dLLM diffusion_generate"])
def test_padding_that_nothing_hides_is_part_of_the_prompt(sampler: str) -> None:
    """With an attention mask rows are unpadded, but for Open-dLLM, which ignores it."""
    own = {} if sampler == "LLaDA generate" else {"alg": "entropy", "max_new_tokens": 4}
    assert [list(asked.tokens) for asked in play("llada_dense", sampler, PADDED, **own).requests] == [[9, 3], [4, 5]]
    hidden = play("llada_dense", sampler, PADDED | {"attention_mask": [[0, 1], [1, 1]]}, **own)
    found = [list(asked.tokens) for asked in hidden.requests]
    assert found == ([[9, 3], [4, 5]] if sampler.startswith("Open") else PADDED["prompts"])


def test_open_dcoder_fills_a_prompt_without_writing_behind_it() -> None:
    """The last open position is the gap, the others are holes."""
    inputs = {"prompts": [[3, 236, 4, 236, 5, 6]]}
    found = play("llada_dense", "Open-dLLM diffusion_generate", inputs, alg="p2", max_new_tokens=0).requests[0]
    assert (list(found.tokens), found.config.max_new_tokens, list(found.suffix)) == ([3, 236, 4], 1, [5, 6])


def sdar(rewrite: bool) -> list[int]:
    """Two passes of two: the first commits three of four, and after it the model would rather say 9 everywhere."""

    def script(tokens: dict[int, int], position: int) -> Tensor:
        known = sum(token != MASK for at, token in tokens.items() if at >= 4)
        if known:
            return says(9)
        return says(position, 20.0 if position < 7 else 1.0)

    options = {"rewrite": True} if rewrite else {}
    asked = SamplingConfig(
        mode="sdar", max_new_tokens=4, block_length=4, steps=2, threshold=0.9, preset_options=options or None
    )
    found = scripted_model(script, "sdar").engine().generate([Request([1, 2, 3, 4], asked, frozenset())])
    return list(found[0].tokens)


def test_sdar_writes_over_committed_positions_only_if_asked() -> None:
    """The reference's top-k of two finds one open position, and takes a committed one along."""
    assert sdar(rewrite=False) == [4, 5, 6, 9]
    found = sdar(rewrite=True)
    taken = torch.topk(torch.tensor([-torch.inf, -torch.inf, -torch.inf, 1.0]), 2).indices.tolist()
    assert found == [9 if index in taken else token for index, token in enumerate([4, 5, 6, 9])]
    assert found.count(9) == 2


def test_sdar_never_writes_over_the_prompt() -> None:
    """A block of which three positions are prompt has one to commit, whatever the quota."""
    asked = SamplingConfig(
        mode="sdar", max_new_tokens=1, block_length=4, steps=1, threshold=1.0, preset_options={"rewrite": True}
    )
    model = scripted_model(lambda _tokens, _place: says(9), "sdar")
    assert model.engine().generate([Request([1, 2, 3], asked, frozenset())])[0].tokens == (9,)


def test_rewrite_needs_a_top_k() -> None:
    """In sequential order nothing open stands before anything committed."""
    asked = SamplingConfig(mode="sdar", preset_options={"remasking": "sequential", "rewrite": True})
    with pytest.raises(OptionError, match="rewrite=True"):
        scripted_model(lambda _tokens, _place: says(9), "sdar").engine().admit(Request([1], asked))


def test_a_hole_may_be_the_first_position() -> None:
    """It is predicted from its own output, as nothing stands before it."""
    model = shifted.load("dream")
    found = shifted.canvases(model, shifted.request("dream", [shifted.MASK, 5, 6], max_new_tokens=3))
    assert found[0][1:3] == [5, 6]
    assert len(found[-1]) == 6
    assert None not in found[-1]
    with pytest.raises(RequestError, match="mask id"):
        scripted_model(lambda _tokens, _place: says(9), "sdar").engine().admit(Request([MASK, 5]))


def test_an_open_first_position_does_not_see_the_company_of_its_row() -> None:
    """The reference reads it from the padding in front of it, if other rows are longer."""
    model = shifted.load("dream")
    short = shifted.request("dream", [shifted.MASK, 5, 6], max_new_tokens=3)
    long = shifted.request("dream", [7, 8, 9, 10, 11, shifted.MASK], max_new_tokens=3)
    together = [found.tokens for found in shifted.generate(model, short, long)]
    assert together == [shifted.generate(model, asked)[0].tokens for asked in (short, long)]
