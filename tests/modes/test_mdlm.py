"""dllm's MDLM and BD3LM samplers beyond what the golden data holds, and BERT-chat's chat."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.native import BERT_CHAT
from dllm_plugins.families.qwen import A2D
from dllm_plugins.families.spec import modes_of
from dllm_plugins.modes.mdlm import share

from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

MODES = ("mdlm", "bd3lm")
NEVER: frozenset[int] = frozenset()
PROMPTS = ([3, 4, 5], [6], [7, 8, 9, 10, 11, 12])


@pytest.fixture(scope="module")
def model() -> Model:
    """Seen both ways, so that MDLM may keep an approximate cache."""
    return random_model(*MODES, seed=5, holds=True)


def one(model: Model, request: Request) -> Finish:
    return model.engine().generate([request])[0]


def test_the_share_of_a_step() -> None:
    """Linear: one of n that are left; cosine: by 1 - cos of the quarter turn."""
    for steps in (1, 2, 5, 7):
        for step in range(steps):
            assert share("linear", step, steps) == pytest.approx(1 / (steps - step), abs=1e-6)
            before, after = ((steps - done) / steps for done in (step, step + 1))
            open_before, open_after = (math.cos(math.pi / 2 * (1 - time)) for time in (before, after))
            assert share("cosine", step, steps) == pytest.approx(1 - open_after / open_before, abs=1e-6)
        assert share("cosine", steps - 1, steps) == 1


def passes_of(left: int, steps: int) -> list[int]:
    """The linear schedule in exact numbers, rounded half to even, without passes that commit nothing."""
    found = []
    for step in range(steps):
        found.append(round(Fraction(left, steps - step)))
        left -= found[-1]
    return [count for count in found if count]


@pytest.mark.parametrize(("length", "steps"), [(8, 5), (10, 4), (8, 8), (7, 7), (16, 1)])
@pytest.mark.parametrize("mode", MODES)
def test_how_many_a_pass_commits(model: Model, mode: str, length: int, steps: int) -> None:
    config = SamplingConfig(mode=mode, max_new_tokens=length, block_length=length, steps=steps)
    drafts = [[MASK] * length]
    for event in model.engine().stream(Request([3, 4], config, stop_ids=NEVER)):
        if type(event).__name__ == "Draft":
            drafts.append([MASK if token is None else token for token in event.tokens])
    opened = [draft.count(MASK) for draft in drafts] + [0]
    assert [left - right for left, right in pairwise(opened)] == passes_of(length, steps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"remasking": "random"},
        {"stochastic_transfer": True, "scheduler": "cosine"},
        {"right_shift_logits": True},
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("guidance", [None, 1.5])
def test_a_batch_equals_its_rows(
    model: Model, mode: str, options: dict[str, Any], temperature: float, guidance: float | None
) -> None:
    """Whatever is drawn is the row's own; exactly as many tokens as asked for, none of them a mask."""
    requests = [
        Request(
            prompt,
            SamplingConfig(
                mode=mode,
                max_new_tokens=5 + seed,
                temperature=temperature,
                seed=seed,
                guidance=guidance,
                preset_options=options,
            ),
            stop_ids=NEVER,
        )
        for seed, prompt in enumerate(PROMPTS)
    ]
    for request, finish in zip(requests, model.engine().generate(requests), strict=True):
        assert finish.tokens == one(model, request).tokens
        assert len(finish.tokens) == request.config.max_new_tokens
        assert MASK not in finish.tokens


@pytest.mark.parametrize("option", ["remasking", "stochastic_transfer"])
def test_a_seed_draws(model: Model, option: str) -> None:
    """Order and number of a greedy run come from the seed alone."""
    own = {"remasking": "random"} if option == "remasking" else {"stochastic_transfer": True}
    found = [
        one(
            model,
            Request(
                [3, 4], SamplingConfig(mode="mdlm", max_new_tokens=24, seed=seed, preset_options=own), stop_ids=NEVER
            ),
        )
        for seed in (1, 1, 2, 3)
    ]
    assert found[0].tokens == found[1].tokens
    assert len({finish.tokens for finish in found}) > 1


@torch.inference_mode()
def uncached(
    model: Model, prompt: list[int], length: int, block: int, *, shift: int, guidance: float | None, pad: int | None
) -> list[int]:
    """BD3LM with all of the text in every pass, one token each; `pad` hides an id as the reference does."""
    network = model.denoiser.model  # type: ignore[attr-defined]

    def logits(text: list[int], numbers: Tensor) -> Tensor:
        seen = numbers[None, :] <= numbers[:, None]
        if pad is not None:
            seen &= (torch.tensor(text) != pad)[None, :] | torch.eye(len(text), dtype=torch.bool)
        mask = torch.zeros(1, 1, *seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        found: Tensor = network(torch.tensor([text]), attention_mask=mask, use_cache=False).logits[0]
        return found

    text = list(prompt)
    while len(text) < len(prompt) + length:
        begin = len(text)
        text += [MASK] * min(block, len(prompt) + length - begin)
        numbers = torch.div(torch.arange(len(text)) - len(prompt), block, rounding_mode="floor")
        while MASK in text:
            said = logits(text, numbers)
            if guidance is not None:
                free = logits([*[MASK] * len(prompt), *text[len(prompt) :]], numbers)
                said = free + (guidance + 1) * (said - free)
            opened = [position for position, token in enumerate(text) if token == MASK]
            sure = {position: said[position - shift].softmax(-1) for position in opened}
            for odds in sure.values():
                odds[MASK] = 0
            best = max(opened, key=lambda position: float(sure[position].max()))
            text[best] = int(sure[best].argmax())
    return text[len(prompt) :]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("guidance", [None, 0.7])
def test_cached_blocks_equal_whole_passes(model: Model, prompt: list[int], shift: int, guidance: float | None) -> None:
    """Shifted, the first position of a block is predicted from before it; guidance has no cache at all."""
    config = SamplingConfig(
        mode="bd3lm",
        max_new_tokens=10,
        block_length=4,
        guidance=guidance,
        preset_options={"right_shift_logits": bool(shift)},
    )
    finish = one(model, Request(prompt, config, stop_ids=NEVER))
    expected = uncached(model, prompt, 10, 4, shift=shift, guidance=guidance, pad=None)
    assert list(finish.tokens) == expected
    assert finish.usage.total_passes == 10


def test_a_token_that_looks_like_padding_is_seen(model: Model) -> None:
    """The reference hides it wherever it stands; ours pads nothing."""
    prompt = [7, 0, 0, 8]
    config = SamplingConfig(mode="bd3lm", max_new_tokens=8, block_length=4)
    tokens = list(one(model, Request(prompt, config, stop_ids=NEVER)).tokens)
    assert tokens == uncached(model, prompt, 8, 4, shift=0, guidance=None, pad=None)
    assert tokens != uncached(model, prompt, 8, 4, shift=0, guidance=None, pad=0)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_predicts_the_mask(mode: str) -> None:
    """The next best token is committed."""
    model = scripted_model(lambda _seen, position: says(MASK, 9.0, **{f"t{position}": 4.0}), mode)
    finish = one(model, Request([1, 2], SamplingConfig(mode=mode, max_new_tokens=6), stop_ids=NEVER))
    assert finish.tokens == (2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("mode", MODES)
def test_the_end_of_text_ends_the_answer(mode: str) -> None:
    """The reference's MDLM goes on behind it, which changes nothing before it."""
    model = scripted_model(lambda _seen, position: says(EOS if position == 6 else position, 9.0 - position / 10), mode)
    finish = one(model, Request([3], SamplingConfig(mode=mode, max_new_tokens=20)))
    assert finish.tokens == (1, 2, 3, 4, 5)
    assert finish.usage.total_passes <= 8


def test_suppressed_and_late_tokens(model: Model) -> None:
    """Suppressed ids are never drawn; late ones are drawn, but committed last of their block."""
    config = SamplingConfig(mode="mdlm", max_new_tokens=16, block_length=16)
    free = one(model, Request([3, 4], config, stop_ids=NEVER)).tokens
    banned = sorted(set(free))[:3]
    held = config.with_options(preset_options={"suppress_tokens": banned})
    assert not set(banned) & set(one(model, Request([3, 4], held, stop_ids=NEVER)).tokens)

    late = scripted_model(lambda _seen, position: says(position, 9.0 - position / 10), "mdlm")
    options = {"begin_suppress_tokens": [1]}
    last = SamplingConfig(mode="mdlm", max_new_tokens=4, preset_options=options)
    drafts = [event for event in late.engine().stream(Request([0], last)) if type(event).__name__ == "Draft"]
    assert [draft.tokens[0] for draft in drafts] == [None] * 3


def test_guidance_hides_what_was_given(model: Model) -> None:
    """The tokens in front of and behind the gap, but not those that shall be kept."""
    hidden: list[dict[int, int]] = []

    def script(seen: dict[int, int], position: int) -> Tensor:
        hidden.append(dict(seen))
        return says(position, 9.0)

    config = SamplingConfig(mode="mdlm", max_new_tokens=1, guidance=1.0, preset_options={"cfg_keep_tokens": [7]})
    one(scripted_model(script, "mdlm"), Request([5, 7, 5], config, suffix=[9, 7]))
    assert [list(seen.values()) for seen in hidden] == [[5, 7, 5, MASK, 9, 7], [MASK, 7, MASK, MASK, MASK, 7]]


def test_infilling(model: Model) -> None:
    """What stands behind the gap is seen and kept."""
    config = SamplingConfig(mode="mdlm", max_new_tokens=4)
    found = [one(model, Request([3, 4], config, stop_ids=NEVER, suffix=suffix)).tokens for suffix in ((5, 6), (9, 10))]
    assert found[0] != found[1]
    with pytest.raises(OptionError, match=r"does not see what follows.*block_length=17"):
        one(model, Request([3], SamplingConfig(mode="bd3lm", max_new_tokens=16), suffix=[5]))


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_approximate_caches(model: Model, kind: str) -> None:
    """With a full pass every time they change nothing."""
    config = SamplingConfig(mode="mdlm", max_new_tokens=8, block_length=4)
    cached = config.with_options(approximate_cache=kind, refresh=1)
    request = Request([3, 4, 5], config, stop_ids=NEVER)
    assert one(model, request).tokens == one(model, replace(request, config=cached)).tokens


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("mdlm", {"preset_options": {"cfg_keep_tokens": [3]}}),
        ("mdlm", {"preset_options": {"begin_suppress_tokens": [3], "remasking": "random"}}),
        ("mdlm", {"preset_options": {"suppress_tokens": [32]}}),
        ("mdlm", {"preset_options": {"scheduler": "quadratic"}}),
        ("mdlm", {"threshold": 0.5}),
        ("bd3lm", {"preset_options": {"suppress_tokens": [3]}}),
        ("bd3lm", {"approximate_cache": "dual"}),
        ("bd3lm", {"guidance": 1.0, "preset_options": {"cfg_keep_tokens": [-1]}}),
    ],
)
def test_options_that_do_nothing(model: Model, mode: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        model.engine().admit(Request([3], SamplingConfig(mode=mode, **options)))


def test_the_name_says_which_sampler() -> None:
    def chosen(name: str, preset: str | None = None) -> str:
        return modes_of(name, Checkpoint(Path(name), {}, A2D, ()), preset, plugins.modes())["diffusion"]

    assert chosen("dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1") == "mdlm"
    assert chosen("dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1") == "bd3lm"
    assert chosen("mine", "bd3lm") == "bd3lm"
    with pytest.raises(CheckpointError, match="preset="):
        chosen("mine")


def test_bert_chat_template(tiny_folder: Path) -> None:
    """The published tokenizers have none; contents are stripped."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder)
    tokenizer.chat_template = BERT_CHAT.chat_template
    messages = [
        {"role": "system", "content": "Be kind.\n"},
        {"role": "user", "content": " Hi "},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "[SYS]\nBe kind.\n[/SYS]\n\n[Question]\nHi\n[/Question]\n\n[Answer]\nHello\n[/Answer]\n\n"
        "[Question]\nBye\n[/Question]\n\n[Answer]\n"
    )
    text = tokenizer.apply_chat_template(messages[1:3], tokenize=False)
    assert text == "[Question]\nHi\n[/Question]\n\n[Answer]\nHello\n[/Answer]\n\n"


def test_a_family_may_end_answers_by_text() -> None:
    """BERT-chat's `[/Answer]` is no single token; a request with stop ids of its own goes without it."""
    assert BERT_CHAT.stops == ("\n[/Answer]", "[/Answer]")
    model = scripted_model(lambda _seen, position: says(position, 9.0 - position / 10), "mdlm", stops=("de",))
    config = SamplingConfig(mode="mdlm", max_new_tokens=8)
    finish = one(model, Request([0], config))
    assert (finish.text, finish.reason) == ("bc", "stop")
    assert one(model, Request([0], config.with_options(stop="c"))).text == "b"
    assert one(model, Request([0], config, stop_ids=NEVER)).text == "bcdefghi"
