"""LLaDA2.0, 2.1 and 2.2 beyond what the golden data holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families import llada2
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.spec import modes_of

from .tiny_models import DELETE
from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import SPLIT
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

MODES = ("llada2.0", "llada2.1", "llada2.2")
NEVER: frozenset[int] = frozenset()
PROMPTS = ([3, 4, 5], [6], [7, 8, 9, 10, 11, 12])


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(*MODES, seed=3)


def one(model: Model, request: Request) -> Finish:
    return model.engine().generate([request])[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("length", [1, 6, 13])
def test_a_batch_equals_its_rows(model: Model, mode: str, temperature: float, length: int) -> None:
    """Any lengths, greedy and drawn; exactly as many tokens as asked for, none of them a mask."""
    configs = [
        SamplingConfig(
            mode=mode, max_new_tokens=length, temperature=temperature, seed=None if not temperature else seed
        )
        for seed in range(3)
    ]
    requests = [Request(prompt, config, stop_ids=NEVER) for prompt, config in zip(PROMPTS, configs, strict=True)]
    together = model.engine().generate(requests)
    for request, finish in zip(requests, together, strict=True):
        assert finish.tokens == one(model, request).tokens
        assert len(finish.tokens) == length
        assert not {MASK, *({DELETE, SPLIT} if mode == "llada2.2" else ())}.intersection(finish.tokens)


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_draws(model: Model, mode: str) -> None:
    """Repeatable, and not the greedy answer."""
    options: dict[str, Any] = {"mode": mode, "max_new_tokens": 16}
    drawn = [
        one(model, Request([3, 4], SamplingConfig(**options, temperature=5.0, seed=seed), stop_ids=NEVER)).tokens
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != one(model, Request([3, 4], SamplingConfig(**options), stop_ids=NEVER)).tokens


@pytest.mark.parametrize(("mode", "early", "late"), [("llada2.0", 5, 7), ("llada2.1", 9, 19)])
def test_early_stop_changes_passes_only(mode: str, early: int, late: int) -> None:
    """The answer is the same; 2.1 without it decodes all blocks, as its reference does."""
    model = scripted_model(lambda _seen, position: says(EOS if position == 5 else position, 3.0 - position / 10), mode)
    for option, passes in ((True, early), (False, late)):
        config = SamplingConfig(mode=mode, max_new_tokens=15, preset_options={"eos_early_stop": option})
        finish = one(model, Request([3], config))
        assert finish.tokens == (1, 2, 3, 4)
        assert finish.reason == "eos"
        assert finish.usage.total_passes == passes


def test_a_prompt_that_holds_the_end_of_text() -> None:
    """The reference looks for it from position 0 on and answers nothing; ours looks at the answer."""
    prompt = [3, EOS, 4]
    model = scripted_model(lambda _seen, position: says(EOS if position == 6 else position, 9.0), "llada2.0")
    finish = one(model, Request(prompt, SamplingConfig(mode="llada2.0", max_new_tokens=9)))
    text = [*prompt, *finish.tokens, EOS]
    assert text[len(prompt) : text.index(EOS) + 1] == []
    assert finish.tokens == (3, 4, 5)
    assert finish.reason == "eos"


def test_more_positions_a_pass_than_the_answer_has(model: Model) -> None:
    """The reference would make no pass at all."""
    config = SamplingConfig(mode="llada2.0", max_new_tokens=3, preset_options={"minimal_topk": 4})
    finish = one(model, Request([3, 4, 5, 6], config, stop_ids=NEVER))
    assert len(finish.tokens) == 3
    assert finish.usage.total_passes == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_predicts_the_mask(mode: str) -> None:
    """The next best token is committed: the mask is no token, and the run ends."""
    model = scripted_model(lambda _seen, position: says(MASK, 9.0, **{f"t{position}": 4.0}), mode)
    finish = one(model, Request([1, 2], SamplingConfig(mode=mode, max_new_tokens=6), stop_ids=NEVER))
    assert finish.tokens == (2, 3, 4, 5, 6, 7)


def test_edits_stay_out_of_the_prompt() -> None:
    """2.1 overwrites what it committed itself, and stops editing after max_post_steps passes."""

    def fickle(seen: dict[int, int], position: int) -> Tensor:
        return says((seen[position] + 1) % 20 if seen[position] != MASK else 0, 9.0)

    for most in (0, 1, 5):
        options = {"max_post_steps": most, "editing_threshold": 0.5}
        config = SamplingConfig(mode="llada2.1", max_new_tokens=2, preset_options=options)
        events = list(scripted_model(fickle, "llada2.1").engine().stream(Request([9, 9], config)))
        finish = events[-1]
        assert isinstance(finish, Finish)
        assert finish.tokens == (most, most)
        assert finish.usage.total_passes == 1 + most


def test_delete_and_split() -> None:
    """A deleted position makes room at the end, a split one opens in front of its token."""
    plan: dict[tuple[int, ...], list[int]] = {
        (MASK, MASK, MASK, MASK): [5, DELETE, 6, 7],
        (5, 6, 7, MASK): [5, SPLIT, 7, 8],
        (5, MASK, 6, 7): [5, 9, 6, 7],
        (5, 9, 6, 7): [5, 9, 6, 7],
    }
    seen_blocks = []

    def script(seen: dict[int, int], position: int) -> Tensor:
        block = tuple(seen[other] for other in range(4, 8))
        if position == 4:
            seen_blocks.append(block)
        return says(plan[block][position - 4], 9.0)

    config = SamplingConfig(mode="llada2.2", max_new_tokens=4)
    finish = one(scripted_model(script, "llada2.2"), Request([1, 2, 3, 4], config, logits=True))
    assert seen_blocks == list(plan)
    assert finish.tokens == (5, 9, 6, 7)
    assert finish.logits is not None
    assert [int(row.argmax()) for row in finish.logits if row is not None] == [5, 9, 6, 7]


def test_the_final_pass_writes_text_only() -> None:
    """A model that only ever deletes is stopped, and its next best tokens are taken."""
    model = scripted_model(
        lambda _seen, position: says(DELETE, 9.0, t30=9.0, t29=8.0, **{f"t{position}": 4.0}), "llada2.2"
    )
    config = SamplingConfig(mode="llada2.2", max_new_tokens=4, preset_options={"max_post_edit_steps": 3})
    finish = one(model, Request([1, 2, 3, 4], config))
    assert finish.tokens == (4, 5, 6, 7)
    assert finish.usage.passes["final"] == 1


def test_a_loop_is_broken() -> None:
    """Two states that lead to each other: the second time another token is tried."""

    def flip(seen: dict[int, int], position: int) -> Tensor:
        token = seen[position]
        return says({5: 6, 6: 5, 7: 7}.get(token, 5), 9.0, t7=4.0)

    config = SamplingConfig(mode="llada2.2", max_new_tokens=1)
    finish = one(scripted_model(flip, "llada2.2", block_length=1), Request([1], config))
    assert finish.tokens == (7,)
    assert "final" not in finish.usage.passes


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("llada2.0", {"preset_options": {"editing_threshold": 0.5}}),
        ("llada2.0", {"preset_options": {"minimal_topk": 0}}),
        ("llada2.0", {"top_k": 3}),
        ("llada2.1", {"steps": 4}),
        ("llada2.1", {"preset_options": {"num_to_transfer": 0}}),
        ("llada2.2", {"preset_options": {"max_post_edit_steps": -1}}),
        ("llada2.2", {"guidance": 1.0}),
    ],
)
def test_options_that_do_nothing(model: Model, mode: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        model.engine().admit(Request([3], SamplingConfig(mode=mode, **options)))


def test_indel_needs_its_ids() -> None:
    model = random_model("llada2.2", ids={"eos_token_id": EOS})
    with pytest.raises(OptionError, match="delete_token_id"):
        model.engine().admit(Request([3], SamplingConfig(mode="llada2.2")))


def test_the_name_says_which_sampler() -> None:
    """2.0 and 2.1 have one config."""

    def chosen(name: str, preset: str | None = None) -> str:
        return modes_of(name, Checkpoint(Path(name), {}, llada2.LAYOUT, ()), preset, plugins.modes())["diffusion"]

    assert chosen("inclusionAI/LLaDA2.0-mini") == "llada2.0"
    assert chosen("inclusionAI/LLaDA2.1-flash") == "llada2.1"
    assert chosen("inclusionAI/LLaDA2.1-flash", "llada2.0") == "llada2.0"
    assert chosen("mine", "llada2.2") == "llada2.2"
    with pytest.raises(CheckpointError, match="preset="):
        chosen("mine")


def test_block_routing_is_refused() -> None:
    """LLaDA2.2 admits experts by block, which changes what every token computes."""
    with pytest.raises(CheckpointError, match="expert_capacity=48"):
        llada2.config({"expert_capacity": 48})


def test_edited_blocks_freeze_as_they_were_left(model: Model) -> None:
    """The next block is the same when the text so far comes as a prompt."""
    config = SamplingConfig(mode="llada2.1", max_new_tokens=12, preset_options={"editing_threshold": 0.3})
    tokens = one(model, Request([3, 4, 5, 6], config, stop_ids=NEVER)).tokens
    again = Request([3, 4, 5, 6, *tokens[:8]], config.with_options(max_new_tokens=4), stop_ids=NEVER)
    assert one(model, again).tokens == tokens[8:]


def test_answers_are_cut_at_the_end_of_text(model: Model) -> None:
    """A token of an unstopped answer as stop id cuts the answer there, in every mode."""
    for mode in MODES:
        request = Request([3, 4], SamplingConfig(mode=mode, max_new_tokens=20), stop_ids=NEVER)
        tokens = one(model, request).tokens
        stop = tokens[len(tokens) // 2]
        finish = one(model, replace(request, stop_ids=frozenset({stop})))
        assert finish.tokens == tokens[: tokens.index(stop)]
        assert finish.stop_token == stop
