"""Whether an answer calls: as the likelihoods say that a model gives, in every mode, company and slice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_plugins import Model
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.request import Request
from dllm_plugins.tools.choosing import IDLE
from dllm_plugins.tools.choosing import LIKELY
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.reading import read
from dllm_plugins.tools.tool import Tool

from ..text.thinking_templates import SWITCHED
from ..thoughtful import thoughtful

TOOLS = (Tool("f", "", {"properties": {"x": {"enum": [1, 2]}}, "required": ["x"]}), Tool("g"))
QUESTIONS = ("why?", "aaa", "Call f now.", "7 + 8", "zebra", "Thank you.", "xyzzy x", "What is f?")


def asked(model: Model, question: str, parallel: bool | None = None, **options: Any) -> Request:
    """With room for two calls."""
    config = SamplingConfig(**{"max_new_tokens": 110, **options})
    return model.chat_request([{"role": "user", "content": question}], config, TOOLS, parallel=parallel)


def said(model: Model, prompt: Sequence[int]) -> float:
    """The log-probability of what a call begins with, read in one go."""
    denoiser, mark = model.denoiser, model.tokenizer.encode(OWN.before, add_special_tokens=False)
    row, tokens = denoiser.open_row(), [*prompt, *mark]
    wanted = range(len(prompt) - 1, len(tokens) - 1)
    [hidden] = denoiser.forward([Segment(row, tokens, range(len(tokens)), wanted=wanted)])
    found = denoiser.logits(hidden).float().log_softmax(-1)
    denoiser.close_row(row)
    return float(found[torch.arange(len(mark)), torch.tensor(mark)].sum())


def expected(model: Model) -> list[bool]:
    """By the likelihoods alone."""
    idle = said(model, model.encode_chat([{"role": "user", "content": IDLE}], TOOLS))
    prompts = [model.encode_chat([{"role": "user", "content": text}], TOOLS) for text in QUESTIONS]
    return [said(model, prompt) > idle for prompt in prompts]


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
def test_a_question_that_makes_a_call_likelier_is_answered_by_one(roomy: Model, mode: str) -> None:
    """Alone and in company, read at once and in slices, and behind a prefix that was kept."""
    wanted = expected(roomy)
    assert {*wanted} == {True, False}
    requests = [asked(roomy, text, mode=mode) for text in QUESTIONS]
    together = roomy.engine(KeptPrefixes(4096)).generate(requests)
    for finish, calls in zip(together, wanted, strict=True):
        reply = read(finish.text, OWN, ["f", "g"])
        assert not reply.malformed
        assert not calls or (len(reply.calls), reply.text) == (1, "")
        assert finish.usage.passes["choice"] == 2
    place = wanted.index(True)
    request, engine = asked(roomy, QUESTIONS[place], mode=mode), roomy.engine(KeptPrefixes(4096))
    for again in (request, request, replace(request, slice=50)):
        [alone] = engine.generate([again])
        assert alone.tokens == together[place].tokens
    assert alone.usage.cached_tokens > 0


def test_how_many_calls(roomy: Model) -> None:
    """One, unless several were allowed; none where none fits."""
    question = QUESTIONS[expected(roomy).index(True)]
    counts = set()
    for seed in range(6):
        [finish] = roomy.engine().generate([asked(roomy, question, True, temperature=1.0, seed=seed)])
        counts.add(len(read(finish.text, OWN, ["f", "g"]).calls))
    assert max(counts) > 1
    [short] = roomy.engine().generate([asked(roomy, question, max_new_tokens=6)])
    assert (read(short.text, OWN, ["f", "g"]).calls, "choice" in short.usage.passes) == ((), False)


def test_results_are_answered(roomy: Model) -> None:
    """By some text that repeats no mark, unless a call is what the model would write anyway."""
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "f", "content": "Because."},
    ]
    requests = [
        roomy.chat_request(chat, SamplingConfig(max_new_tokens=110, temperature=1.0, seed=seed), TOOLS)
        for seed in range(2)
    ]
    assert said(roomy, requests[0].tokens) < LIKELY
    for finish in roomy.engine().generate(requests):
        assert finish.text.strip()
        assert "<tool" not in finish.text
        assert finish.usage.passes["choice"] == 1


def test_what_is_left_to_the_model(roomy: Model, tiny_folder: Path, tmp_path: Path) -> None:
    """Where it was taught to call, where a call is asked for, and where nothing is asked at all."""
    assert asked(roomy, IDLE).choosing is None
    chat = [{"role": "user", "content": "why?"}]
    assert roomy.chat_request(chat, SamplingConfig(), TOOLS, "any").choosing is None
    assert roomy.chat_request(chat).choosing is None
    base = thoughtful(tiny_folder, tmp_path / "base", SWITCHED)
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    taught = load_model("dllm", base=base, denoiser=denoiser, dtype="float32", device="cpu")
    assert taught.tool_habit().native
    assert taught.chat_request(chat, SamplingConfig(), TOOLS, thinking=False).choosing is None
