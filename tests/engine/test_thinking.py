"""Answers of a model that thinks first: events, options, constraints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Finish
from dllm_plugins import JsonSchema
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.sharing import SharedModel
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.reading import read
from dllm_plugins.tools.tool import Tool

from ..text.thinking_templates import BEGUN
from ..text.thinking_templates import BRACKETS
from ..text.thinking_templates import SWITCHED
from ..thoughtful import thoughtful

CHAT = [{"role": "user", "content": "why?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
Make = Callable[..., Model]


@pytest.fixture
def thinker(tiny_folder: Path, tmp_path: Path) -> Make:
    """Load the tiny model with a template."""

    def make(template: str, special: tuple[str, ...] = ()) -> Model:
        base = thoughtful(tiny_folder, tmp_path / "base", template, special)
        denoiser = tiny_folder.parent / "denoiser.safetensors"
        return load_model("dllm", base=base, denoiser=denoiser, dtype="float32", device="cpu")

    return make


def answered(model: Model, chat: Any = CHAT, thinking: bool | None = None, **options: Any) -> Finish:
    """The answer to a chat."""
    request = model.chat_request(chat, SamplingConfig(**options), thinking=thinking)
    return model.engine().generate([request])[0]


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
@pytest.mark.parametrize("special", [(), ("<think>", "</think>")], ids=["texts", "special tokens"])
def test_a_constraint_is_about_what_is_said(thinker: Make, mode: str, special: tuple[str, ...]) -> None:
    """Random weights think as they like, end that in time, and say what they must."""
    model = thinker(BEGUN, special)
    for seed in range(2):
        options: dict[str, Any] = {"mode": mode, "temperature": 1.0, "seed": seed, "max_new_tokens": 50}
        found = answered(model, constraint=JsonSchema(SCHEMA), **options)
        assert isinstance(json.loads(found.text)["a"], int)
        assert found.reasoning
        assert "</think>" not in found.reasoning + found.text
        thought = found.usage.reasoning_tokens
        assert thought is not None
        said = model.tokenizer.decode(found.tokens[thought:], skip_special_tokens=True)
        assert said == found.text


def test_modes_agree_with_thinking(thinker: Make) -> None:
    """`speculative` is `ar`, thoughts and all."""
    model = thinker(BEGUN)
    for options in ({}, {"constraint": Regex("(yes|no)[.]")}, {"temperature": 0.9, "seed": 4}):
        slow, fast = (answered(model, mode=mode, max_new_tokens=40, **options) for mode in ("ar", "speculative"))
        assert (slow.reasoning, slow.text, slow.tokens) == (fast.reasoning, fast.text, fast.tokens)
        assert slow.reasoning


def test_events_say_which(thinker: Make) -> None:
    """Commits add up to the answer in both parts, and drafts go on from there."""
    model = thinker(BEGUN)
    config = SamplingConfig(constraint=Regex("yes, yes"), max_new_tokens=40, logprobs=0, mode="speculative")
    events = list(model.engine().stream(model.chat_request(CHAT, config)))
    commits = [event for event in events if isinstance(event, Commit)]
    *_, last = events
    assert isinstance(last, Finish)
    assert last.text == "yes, yes"
    assert "".join(commit.reasoning for commit in commits) == last.reasoning != ""
    assert "".join(commit.text for commit in commits) == last.text
    assert [token for commit in commits for token in commit.tokens] == list(last.tokens)
    assert [said.token for commit in commits for said in commit.logprobs] == list(last.tokens)
    drafts = [event for event in events if isinstance(event, Draft)]
    assert any(draft.reasoning for draft in drafts)
    assert all(draft.committed in last.text for draft in drafts)
    assert last.usage.reasoning_tokens == len(last.tokens) - len("yes, yes")
    assert last.usage.as_dict()["reasoning_tokens"] == last.usage.reasoning_tokens


def test_cut_in_the_middle(thinker: Make) -> None:
    """A thought that the room ends is told as one, and nothing is said; stop strings do not end it."""
    model = thinker(BEGUN)
    plain = answered(model, max_new_tokens=12)
    assert (plain.text, plain.reason) == ("", "length")
    assert plain.usage.reasoning_tokens == 12
    inside = next(letter for letter in plain.reasoning if letter.isascii() and letter.strip())
    assert answered(model, max_new_tokens=12, stop=(inside,)).reasoning == plain.reasoning
    stopped = answered(model, constraint=Regex("yes, no"), max_new_tokens=40, stop=(", ",))
    assert (stopped.text, stopped.reason) == ("yes", "stop")
    assert stopped.reasoning


def test_switches(thinker: Make) -> None:
    """The template is told by its own variable; without one, saying so is refused."""
    model = thinker(BRACKETS)

    def prompt(thinking: bool | None) -> str:
        return str(model.tokenizer.decode(model.encode_chat(CHAT, thinking=thinking)))

    assert prompt(True) == "[user]why?[/user][assistant][THINK]"
    assert prompt(False) == prompt(None) == "[user]why?[/user][assistant]"
    told = {thinking: answered(model, thinking=thinking, max_new_tokens=8) for thinking in (True, False)}
    assert told[True].reasoning
    assert told[False].text
    assert told[False].reasoning == told[True].text == ""


def test_switches_that_there_are_not(thinker: Make, tiny: Model) -> None:
    model = thinker(BEGUN)
    for one, words in ((model, "thinks or not as it likes"), (tiny, "does not think")):
        with pytest.raises(OptionError, match=f"thinking=False: .* {words}"):
            one.encode_chat(CHAT, thinking=False)
    with pytest.raises(RequestError, match="empty"):
        model.chat_request([])


def test_history(thinker: Make) -> None:
    """Earlier thoughts stand in the prompt where the template wants them: here within a round of calls."""
    model = thinker(SWITCHED)
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {}}}
    thought: dict[str, Any] = {"role": "assistant", "content": "Hm.", "reasoning_content": "so and so"}
    within = [*CHAT, {**thought, "tool_calls": [call]}, {"role": "tool", "name": "f", "content": "1"}]
    behind = [*CHAT, thought, *CHAT]
    assert "<think>\nso and so\n</think>\n\nHm." in model.tokenizer.decode(model.encode_chat(within, [Tool("f")]))
    assert "so and so" not in model.tokenizer.decode(model.encode_chat(behind))


def test_calls_behind_thoughts(thinker: Make) -> None:
    """Whatever is thought, even of calls; the call itself is whole."""
    model = thinker(BEGUN)
    for seed in range(2):
        config = SamplingConfig(max_new_tokens=100, temperature=1.0, seed=seed)
        request = model.chat_request(CHAT, config, [Tool("f", "", SCHEMA)], "any")
        found = model.engine().generate([request])[0]
        reply = read(found.text, model.tool_habit().form, ["f"])
        assert [set(one.arguments) for one in reply.calls] == [{"a"}]
        assert found.reasoning
        assert OWN.marker not in reply.text


def test_ended_from_outside(thinker: Make) -> None:
    """An answer that is cut while it goes on, or when it had ended already, keeps both of its parts."""
    shared = SharedModel(thinker(BEGUN))
    request = shared.model.chat_request(CHAT, SamplingConfig(constraint=Regex("yes"), max_new_tokens=30))
    [whole] = shared.generate([request])
    thought = whole.usage.reasoning_tokens
    assert thought is not None
    batch = shared.stream_batch([request])
    events, told = iter(batch), ""
    while len(told) < len(whole.reasoning) // 2:
        _, event = next(events)
        told += event.reasoning if isinstance(event, Commit) else ""
    cut = batch.stop(0, thought // 4)
    assert cut.reasoning.rstrip("\ufffd")
    assert whole.reasoning.startswith(cut.reasoning.rstrip("\ufffd"))
    assert (cut.text, cut.usage.reasoning_tokens) == ("", thought // 4)
    late = whole.cut(thought + 2, "ye", whole.reasoning)
    assert (late.reasoning, late.text, late.usage.reasoning_tokens) == (whole.reasoning, "ye", thought)
