"""Templates: gaps between fixed tokens, for every sampler that fills them and every one that does not."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.template import Gap

from . import shifted
from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

WHOLE = ("llada", "fast_dllm", "mdlm", "dream", "open_dcoder", "rnd1", "diffullama", "saber", "scheduled", "mgdm")
EITHER = ("wino", "freedave", "ssd", "flow", "remdm")
BLOCKS = ("sdar", "blocks", "llada2.0", "stable_diffcoder", "bd3lm")
#: Options that take tokens back, by sampler.
TAKING_BACK: dict[str, dict[str, Any]] = {
    "llada": {"revoke": "edit", "revoke_options": {"edit_threshold": 0.05}},
    "blocks": {"revoke": "doubt", "revoke_options": {"threshold": 0.9, "most": 4}},
    "open_dcoder": {"preset_options": {"alg": "p2"}},
    "remdm": {"preset_options": {"eta": 0.9}},
    "flow": {"preset_options": {"corrector": 10.0}},
}
TEMPLATE = (Gap(tokens=3), [7, 8, EOS], Gap(max_tokens=4), [10, 11])


@cache
def model(kind: str) -> Model:
    """Random weights that see the whole canvas, or blocks of 16 positions."""
    if kind == "whole":
        return random_model(*WHOLE, *EITHER, "ar", "speculative", "llada2.1", "idlm", cache="none")
    return random_model(*BLOCKS, *EITHER, "llada2.1", block_length=16)


def cases() -> list[Any]:
    """A kind of model, a sampler, and options that it has there."""
    found: list[tuple[str, str, dict[str, Any]]] = [("whole", name, {}) for name in (*WHOLE, *EITHER)]
    found += [("blocks", name, {}) for name in (*BLOCKS, *EITHER)]
    found += [
        (kind, name, own)
        for name, own in TAKING_BACK.items()
        for kind, served in (("whole", (*WHOLE, *EITHER)), ("blocks", (*BLOCKS, *EITHER)))
        if name in served
    ]
    return [pytest.param(*case, id="-".join([case[0], case[1], *case[2]])) for case in found]


def asked(mode: str | None, template: Any = TEMPLATE, prompt: tuple[int, ...] = (3, 4, 5), **options: Any) -> Request:
    return Request(prompt, SamplingConfig(mode=mode, **options), template=template)


def one(model: Model, request: Request) -> Finish:
    [finish] = model.engine().generate([request])
    return finish


@pytest.mark.parametrize(("kind", "mode", "own"), cases())
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}], ids=["greedy", "drawn"])
def test_gaps_are_filled_and_nothing_else_changes(
    kind: str, mode: str, own: dict[str, Any], options: dict[str, Any]
) -> None:
    """Also where the sampler takes tokens back, and where fixed text holds what ends a text."""
    *events, finish = model(kind).engine().stream(asked(mode, **own, **options))
    assert isinstance(finish, Finish)
    first, second = finish.gaps
    assert len(first.tokens) == 3
    assert len(second.tokens) <= 4
    assert MASK not in (*first.tokens, *second.tokens)
    assert finish.tokens == (*first.tokens, 7, 8, EOS, *second.tokens)
    assert (first.reason, second.reason) == ("length", "length" if len(second.tokens) == 4 else "eos")
    assert finish.usage.prompt_tokens == 8
    assert finish.usage.useful_tokens == len(first.tokens) + len(second.tokens)
    known = 0
    for event in events:
        if isinstance(event, Commit):
            known += len(event.tokens)
        elif isinstance(event, Draft):
            one, other = event.gaps
            assert event.tokens == (*one.tokens, 7, 8, EOS, *other.tokens)[known:]
            assert one.final + other.final + 3 * bool(other.final) in (known, known - 3)
            # Before its time no fixed token is open or another.
            assert {(at, event.tokens[at - known]) for at in (3, 4, 5) if at >= known} <= {(3, 7), (4, 8), (5, EOS)}
    assert tuple(token for event in events if isinstance(event, Commit) for token in event.tokens) == finish.tokens
    texts = zip(*(event.gaps for event in events if isinstance(event, Commit)), strict=True)
    assert tuple("".join(parts) for parts in texts) == (first.text, second.text)


@pytest.mark.parametrize(("kind", "mode", "own"), cases())
def test_a_batch_of_unequal_templates_equals_each_alone(kind: str, mode: str, own: dict[str, Any]) -> None:
    """Drawn, with other rows that have no template at all."""
    requests = [
        asked(mode, temperature=0.8, seed=1, **own),
        asked(mode, (Gap(max_tokens=5), [9]), (3,), temperature=0.8, seed=2, **own),
        asked(mode, ([6, 6], Gap(tokens=2)), (3, 4), temperature=0.8, seed=3, **own),
        Request((3, 4), SamplingConfig(mode=mode, max_new_tokens=6, seed=4, temperature=0.8, **own)),
    ]
    together = model(kind).engine().generate(requests)
    alone = [one(model(kind), request) for request in requests]
    assert [finish.tokens for finish in together] == [finish.tokens for finish in alone]
    assert [finish.gaps for finish in together] == [finish.gaps for finish in alone]


@pytest.mark.parametrize(("kind", "mode"), [("whole", "llada"), ("whole", "dream"), ("blocks", "sdar")])
def test_what_stands_behind_is_seen(kind: str, mode: str) -> None:
    """Another text behind the gap, another filling; several positions away, too."""
    found = {
        one(model(kind), asked(mode, (Gap(tokens=4), [9, *behind]))).gaps[0].tokens
        for behind in ([5, 6], [20, 21], [14, 2])
    }
    assert len(found) > 1


@pytest.mark.parametrize(("kind", "mode"), [("whole", "llada"), ("whole", "mdlm"), ("blocks", "blocks")])
def test_gaps_at_the_beginning_and_at_the_end(kind: str, mode: str) -> None:
    """Nothing is written behind the last part; a whole canvas needs no prompt."""
    prompt = () if kind == "whole" else (3,)
    finish = one(model(kind), asked(mode, (Gap(tokens=2), [7, 8], Gap(tokens=3)), prompt))
    assert [len(gap.tokens) for gap in finish.gaps] == [2, 3]
    assert finish.tokens == (*finish.gaps[0].tokens, 7, 8, *finish.gaps[1].tokens)


def test_a_seed_repeats_a_filling() -> None:
    """And another one gives another."""
    made = model("whole")
    found = [one(made, asked("llada", temperature=1.0, seed=seed)).tokens for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def by_position(*tokens: int) -> Model:
    """Says these tokens at positions 0, 1, ..., in any order."""

    def script(_seen: dict[int, int], position: int) -> Tensor:
        return says(tokens[position])

    return scripted_model(script, "llada", cache="none", attention="bidirectional")


def test_what_ends_a_text_ends_a_bounded_gap_only() -> None:
    """A fixed one holds whatever was said; a bounded one drops what stands behind, and the next gap goes on."""
    made = by_position(3, 5, EOS, 6, 9, 5, EOS, 6, 9)
    fixed = one(made, asked("llada", (Gap(tokens=3), [9], Gap(tokens=3)), (3,)))
    assert [gap.tokens for gap in fixed.gaps] == [(5, EOS, 6), (5, EOS, 6)]
    bounded = one(made, asked("llada", (Gap(max_tokens=3), [9], Gap(max_tokens=3)), (3,)))
    assert [(gap.tokens, gap.reason) for gap in bounded.gaps] == [((5,), "eos")] * 2
    assert bounded.tokens == (5, 9, 5)
    assert bounded.usage.useful_tokens == 2


def test_a_stop_string_ends_the_gap_it_is_in() -> None:
    """Letters are one token each; 5 is `f`."""
    made = by_position(3, 5, 6, 7, 9, 5, 5, 6, 7)
    letters = made.tokenizer
    template = (Gap(max_tokens=3), [9], Gap(max_tokens=4))
    finish = one(made, asked("llada", template, (3,), stop=(letters.decode([6]),)))
    assert [(gap.tokens, gap.reason) for gap in finish.gaps] == [((5,), "stop"), ((5, 5), "stop")]
    with pytest.raises(OptionError, match=r"stop=\['x'\] has no effect on gaps of a fixed length"):
        one(made, asked("llada", (Gap(tokens=3),), (3,), stop=("x",)))


def test_a_gap_ends_where_it_goes_on_with_what_follows() -> None:
    """Of fixed text that is long enough to tell; what was written twice stands once."""
    made = by_position(3, 5, 6, 10, 11, 12, 13, 14, 10, 11, 12, 13, 14)
    finish = one(made, asked("llada", (Gap(max_tokens=7), [10, 11, 12, 13, 14]), (3,)))
    assert (finish.gaps[0].tokens, finish.gaps[0].reason) == ((5, 6), "follows")
    # Three letters stand anywhere.
    finish = one(made, asked("llada", (Gap(max_tokens=7), [10, 11, 12]), (3,)))
    assert (finish.gaps[0].tokens, finish.gaps[0].reason) == ((5, 6, 10, 11, 12, 13, 14), "length")


def test_logits_stand_where_the_tokens_do() -> None:
    """Of a fixed token there are none, and what a gap drops leaves none either."""
    made = by_position(3, 5, EOS, 6, 9, 5, EOS, 6)
    request = asked("llada", (Gap(max_tokens=3), [9], Gap(max_tokens=3)), (3,))
    finish = one(made, Request(request.tokens, request.config, template=request.template, logits=True))
    assert finish.logits is not None
    assert [None if source is None else int(source.argmax()) for source in finish.logits] == [5, None, 5, EOS]
    assert finish.stop_token == EOS


@pytest.mark.parametrize("name", ["dreamon"])
@pytest.mark.parametrize("seed", range(4))
def test_gaps_that_grow_and_shrink(name: str, seed: int) -> None:
    """DreamOn: bounded ones have any length up to theirs, fixed ones exactly it, and what is fixed moves unchanged."""
    made = shifted.load(name)
    template = (Gap(max_tokens=6), [7, 8, shifted.EOS], Gap(max_tokens=9), [10], Gap(tokens=3), [12, shifted.EOS])
    own = {"expand_token_id": shifted.EXPAND}
    request = Request(
        [3, 4], SamplingConfig(mode=name, temperature=1.5, seed=seed, preset_options=own), template=template
    )
    finish = one(made, request)
    first, second, third = (gap.tokens for gap in finish.gaps)
    assert finish.tokens == (*first, 7, 8, shifted.EOS, *second, 10, *third)
    assert len(first) <= 6
    assert len(second) <= 9
    assert len(third) == 3
    assert not {shifted.MASK, shifted.EXPAND, shifted.EOS}.intersection(first, second, third)


def test_lengths_of_growing_gaps_differ() -> None:
    """So that the test before this one has something to see."""
    made, own = shifted.load("dreamon"), {"expand_token_id": shifted.EXPAND}
    found = set()
    for seed in range(8):
        config = SamplingConfig(mode="dreamon", temperature=1.5, seed=seed, preset_options=own)
        found.add(len(one(made, Request([3, 4], config, template=(Gap(max_tokens=9), [7]))).gaps[0].tokens))
    assert len(found) > 2


@pytest.mark.parametrize("mode", ["ar", "speculative", "llada2.1", "idlm"])
def test_modes_that_see_nothing_behind_refuse(mode: str) -> None:
    """They name one that does."""
    with pytest.raises(OptionError, match=rf"mode '{mode}' writes to the end .* fills no gaps; use mode 'llada'"):
        model("whole").engine().admit(asked(mode))


def test_without_a_mode_the_first_that_fills_is_taken() -> None:
    """A prompt to go on from still has the model's default."""
    made = random_model("ar", "sdar", block_length=16)
    assert one(made, asked(None)).usage.mode == "sdar"
    assert one(made, Request([3], SamplingConfig(max_new_tokens=2))).usage.mode == "ar"


def test_blocks_refuse_what_they_do_not_see() -> None:
    """And say how long blocks would have to be."""
    made = random_model("sdar", block_length=4)
    with pytest.raises(
        OptionError, match=r"gap of 3 tokens at position 3 does not see .* blocks of 4 .* block_length=7"
    ):
        one(made, asked("sdar", (Gap(tokens=3), [9, 9, 9], Gap(max_tokens=4), [10])))
    assert len(one(made, asked("sdar", (Gap(tokens=3), [9, 9, 9], Gap(max_tokens=4), [10]), block_length=7)).gaps) == 2
    # Nothing stands behind the last gap, so there is nothing to see.
    assert len(one(made, asked("sdar", (Gap(tokens=9),))).gaps[0].tokens) == 9


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asked("llada", ([5], [6])), "no gap"),
        (asked("llada", (Gap(tokens=3), [MASK])), "mask id 31"),
        (asked("llada", (Gap(tokens=3), [99])), "id 99"),
        (asked("llada", (Gap(tokens=200), [3])), "shorten it"),
        (Request([3], suffix=[4], template=(Gap(tokens=1),)), "belongs into the template"),
        (asked("llada", max_new_tokens=9), "max_new_tokens=9 has no effect beside a template"),
    ],
)
def test_templates_that_cannot_be_used(request_: Request, words: str) -> None:
    """Each says what is wrong."""
    with pytest.raises((OptionError, RequestError), match=words):
        model("whole").engine().admit(request_)


def test_an_end_of_the_whole_text_is_refused() -> None:
    """Gaps behind it would stay open."""
    with pytest.raises(OptionError, match=r"eos_confidence=0.5 ends the whole text"):
        one(model("whole"), asked("scheduled", preset_options={"eos_confidence": 0.5}))


def test_every_sampler_was_thought_of() -> None:
    """A new one that fills gaps belongs to the lists above."""
    fills = {name for name, sampler in plugins.modes().items() if sampler.suffix}
    assert fills == {*WHOLE, *EITHER, *BLOCKS, "dreamon", "diffusion"}


def test_torch_is_left_alone() -> None:
    """Filling draws from the request's own noise."""
    state = torch.random.get_rng_state()
    one(model("whole"), asked("llada", temperature=1.0, seed=5))
    assert torch.equal(state, torch.random.get_rng_state())


def test_logprobs_stand_where_the_tokens_do() -> None:
    """At settling and in the last look; of what a gap drops there are none."""
    made = by_position(3, 5, EOS, 6, 9, 5, EOS, 6)
    for when in (None, "final"):
        options = {} if when is None else {"logprobs_at": when}
        finish = one(made, asked("llada", (Gap(max_tokens=3), [9], Gap(max_tokens=3)), (3,), logprobs=1, **options))
        assert finish.logprobs is not None
        assert [said.token for said in finish.logprobs] == [5, 9, 5, EOS]
        assert finish.logprobs[0].logprob == finish.logprobs[2].logprob
