"""Long prompts of families that see in blocks, in slices: the same answers, while others go on."""

import random
from dataclasses import replace
from typing import Any

import pytest

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load
from dllm_plugins.decoding.program import Pass
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.engine.slices import _behind
from dllm_plugins.engine.slices import _first_slice

from ..golden.cases import FOLDERS
from ..golden.cases import modes_of

NAMES = (
    "fastdllm_v2",
    "llada2_0",
    "llada2_2_indel",
    "nemotron_labs",
    "sdar",
    "stable_diffcoder",
    "wedlm_qwen2",
)
LENGTH, SLICE = 75, 16
#: Room for an answer.
ROOM = 8


def model_of(case: Case) -> Model:
    """In float32, where what is computed in another order is the same token."""
    return CaseModels(case).get(**{**first_load(case), "dtype": "float32"})


def prompt_of(model: Model, length: int = LENGTH) -> list[int]:
    """Tokens that are neither masks nor ends, as many as there is room for."""
    spec, drawn = model.denoiser.spec, random.Random(1)
    length = min(length, spec.context - 2 * ROOM)
    known = [token for token in range(5, spec.vocabulary) if token not in (spec.mask_id, *spec.stop_ids)]
    return drawn.choices(known, k=length)


@pytest.mark.parametrize("name", [name for name in NAMES if name in FOLDERS])
def test_answers_are_the_same(name: str) -> None:
    """In every mode that caches its prompt; it takes a pass for each slice more, and forwards nothing twice."""
    case, sliced = Case(FOLDERS[name]), 0
    model = model_of(case)
    for mode, options in modes_of(case, model):
        own = {"mode": mode, "preset_options": options, "max_new_tokens": ROOM, "seed": 2}
        request = Request(prompt_of(model), SamplingConfig(**own))
        [whole] = model.engine().generate([request])
        [found] = model.engine().generate([replace(request, slice=SLICE)])
        assert (found.tokens, found.reason) == (whole.tokens, whole.reason), mode
        slices = found.usage.passes.get("slice", 0)
        sliced += slices > 0
        assert found.usage.total_passes == whole.usage.total_passes + slices, mode
        assert found.usage.rows == whole.usage.rows, mode
    assert sliced


def test_to_the_bit_where_that_is_promised() -> None:
    """On the row-invariant decoder, with log-probabilities."""
    model = CaseModels(Case(FOLDERS["sdar"]), backend="kernels").get()
    assert model.denoiser.spec.numerics == "row-invariant"
    request = Request(prompt_of(model), SamplingConfig(max_new_tokens=ROOM, logprobs=2))
    [whole], [found] = (model.engine().generate([replace(request, slice=size)]) for size in (None, SLICE))
    assert found.usage.passes["slice"] == 4
    assert (found.tokens, found.logprobs) == (whole.tokens, whole.logprobs)


def test_what_reads_itself_is_left_whole() -> None:
    """Rounding would grow from pass to pass until another token is drawn."""
    model = model_of(Case(FOLDERS["diffusion_gemma"]))
    request = Request(prompt_of(model), SamplingConfig(max_new_tokens=ROOM, seed=2))
    [whole], [found] = (model.engine().generate([replace(request, slice=size)]) for size in (None, SLICE))
    assert (found.tokens, found.usage.passes) == (whole.tokens, whole.usage.passes)


def test_others_go_on() -> None:
    """A long prompt lets another row's passes through; and leaving in the middle frees it."""
    model = model_of(Case(FOLDERS["sdar"]))
    engine = model.engine()
    config = SamplingConfig(max_new_tokens=24, steps=4)
    short = engine.admit(Request(prompt_of(model, 5), config))
    long = engine.admit(Request(prompt_of(model), config, slice=SLICE))
    told = set[int]()
    for _ in range(LENGTH // SLICE):
        events = engine.step()
        told |= {event.row for event in events if isinstance(event, Commit)}
        assert all(isinstance(event, Draft) and event.tokens == () for event in events if event.row == long)
    assert told == {short}
    engine.cancel(long)
    assert engine.active == (short,)


def part(count: int, **more: Any) -> Segment:
    return Segment(1, [7] * count, range(count), **more)


@pytest.mark.parametrize(
    ("segments", "freeze", "count"),
    [
        ((part(20),), 20, 4),
        ((part(20, wanted=[19]),), 20, 4),
        ((part(20, wanted=[2]),), 20, 2),
        ((part(20, wanted=[0]),), 20, 0),
        ((part(20, causal=False),), 20, 0),
        ((part(20),), 4, 0),
        ((part(8, groups=[0, 0, 0, 1, 1, 1, 2, 2]),), 8, 3),
        ((part(8, groups=[0, 0, 0, 0, 0, 0, 1, 1]),), 8, 6),
        ((part(8, groups=[0] * 8),), 8, 0),
        ((part(8, groups=[0, 0, 1, 1, 0, 2, 2, 2]),), 8, 5),
        ((part(20), part(3, behind=((0, 20),))), 20, 4),
        ((part(20), part(3, behind=((0, 3),))), 20, 3),
        ((part(20), part(3)), 20, 0),
    ],
)
def test_where_passes_are_cut(segments: tuple[Segment, ...], freeze: int, count: int) -> None:
    """Into slices of four: where no token sees one behind, and nothing in the pass is blind for what is cut off."""
    made = Pass(segments, freeze=freeze)
    assert _first_slice(made, 4) == count
    if count:
        rest = _behind(made, count)
        assert rest.freeze == freeze - count
        assert list(rest.segments[0].positions) == list(range(count, len(segments[0].tokens)))
        assert [index + count for index in rest.segments[0].wanted] == list(segments[0].wanted)
        assert [segment.behind for segment in rest.segments[1:]] == [
            tuple((index, size - count) for index, size in segment.behind) for segment in segments[1:]
        ]
