"""Events become frames: what stands where, since when, and how sure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.events import TokenLogprob
from dllm_plugins.events import Usage
from dllm_plugins.traces import Cell
from dllm_plugins.traces import Recorder
from dllm_plugins.traces import Trace
from dllm_plugins.traces.pieces import TokenTexts

from ..conftest import make_tokenizer

TOKENIZER: Any = make_tokenizer()
CHAT = [{"role": "user", "content": "why?"}]
USAGE = Usage(3, 0, 4, 4, {"prefill": 1, "predict": 3}, 12, 0.5, 0.1, "diffusion", "exact", "row-invariant", 0)


def ids(text: str) -> list[int]:
    """Its bytes as tokens."""
    found: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return found


def said(tokens: Sequence[int], *sure: float) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token, math.log(value)) for token, value in zip(tokens, sure, strict=True))


def recorded(events: Sequence[Any]) -> Trace:
    recorder = Recorder(TOKENIZER)
    for event in events:
        recorder.take(event)
    return recorder.trace(CHAT, "dllm")


def test_what_each_pass_left() -> None:
    """Final, committed, guessed and open positions; a token keeps the pass that put it there and its confidence."""
    a, b, c, d, x = ids("abcdx")
    trace = recorded(
        [
            Commit(1, 1, (a,), "a", said([a], 0.5)),
            Draft(1, 1, (None, c, None), "", (b, c, None), confidences=(0.25, 0.75, None)),
            Draft(1, 2, (None, x, d), "", (b, x, d), confidences=(0.5, 0.9, 0.4)),
            Commit(1, 3, (b, x), "bx", said([b, x], 0.6, 0.1)),
            Draft(1, 3, (d,), "d", (d,), confidences=(0.4,)),
            Commit(1, 4, (d,), "d", said([d], 0.4)),
            Finish(1, 4, "length", (a, b, x, d), "abxd", USAGE),
        ]
    )
    first = Cell("a", "final", 0.5, 1)
    assert [frame.step for frame in trace.frames] == [1, 2, 3, 4]
    assert trace.frames[0].cells == (first, Cell("b", "guess", 0.25), Cell("c", "committed", 0.75, 1), Cell())
    second = (first, Cell("b", "guess", 0.5), Cell("x", "committed", 0.9, 2), Cell("d", "committed", 0.4, 2))
    assert trace.frames[1].cells == second
    assert trace.frames[2].cells[1].confidence == pytest.approx(0.6)
    held = (first, Cell("b", "final", trace.frames[2].cells[1].confidence, 3), Cell("x", "final", 0.9, 2))
    assert trace.frames[2].cells == (*held, Cell("d", "committed", 0.4, 2))
    assert trace.frames[3].cells == (*held, Cell("d", "final", 0.4, 2))
    assert (trace.reason, trace.usage, trace.frames[3].text) == ("length", USAGE, "abxd")


def test_what_is_reopened_is_settled_anew() -> None:
    """It counts as settled by the pass that put the last token there."""
    a, b = ids("ab")
    trace = recorded([Draft(1, 1, (a,), ""), Draft(1, 2, (None,), ""), Draft(1, 3, (a,), ""), Draft(1, 4, (b,), "")])
    assert [frame.cells for frame in trace.frames] == [
        (Cell("a", "committed", None, 1),),
        (Cell(),),
        (Cell("a", "committed", None, 3),),
        (Cell("b", "committed", None, 4),),
    ]
    assert (trace.reason, trace.usage) == (None, None)


def test_special_tokens_have_names() -> None:
    """They are no part of the text."""
    [a], end = ids("a"), TOKENIZER.eos_token_id
    cells = recorded([Draft(1, 1, (a, end, None), "")]).frames[0].cells
    assert cells == (Cell("a", "committed", None, 1), Cell("</s>", "committed", None, 1, special=True), Cell())


@pytest.mark.parametrize("text", ["", "a", "naïve 光の散乱 🌈 end", "🌈", "\n\n x"])
def test_pieces_join_to_the_text(text: str) -> None:
    """A character of several tokens belongs to the last of them, and what stands behind it to nobody else."""
    found = TokenTexts(TOKENIZER).of(ids(text))
    assert "".join(found) == text
    place = 0
    for sign in text:
        size = len(sign.encode())
        assert found[place : place + size] == [""] * (size - 1) + [sign]
        place += size


def test_half_a_character_at_the_end() -> None:
    """It is shown as what it is, and no longer once the rest is there."""
    rainbow = ids("x🌈")
    assert TokenTexts(TOKENIZER).of(rainbow[:3]) == ["x", "", "\ufffd"]
    assert TokenTexts(TOKENIZER).of(rainbow[1:], before=rainbow[0]) == ["", "", "", "🌈"]


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "ar"},
        {"mode": "speculative"},
        {"mode": "speculative", "draft_length": 3, "temperature": 1.0, "seed": 5},
        {"mode": "diffusion", "threshold": 0.02},
        {"mode": "diffusion", "stop": ("e",)},
    ],
    ids=str,
)
def test_the_engines_own_events(tiny: Model, options: dict[str, Any]) -> None:
    """A frame for every pass but those of one answer's beginning; the last is the answer; what is final stays."""
    recorder, finish = Recorder(tiny.tokenizer), None
    config = SamplingConfig(max_new_tokens=24, logprobs=0, **options)
    for event in tiny.engine().stream(Request(tiny.encode_chat(CHAT), config)):
        recorder.take(event)
        finish = event
    assert isinstance(finish, Finish)
    trace = recorder.trace(CHAT, tiny.name)
    assert len(trace.frames) == finish.usage.total_passes
    last = trace.frames[-1].cells
    assert len(last) == len(finish.tokens)
    text = trace.frames[-1].text
    assert text.startswith(finish.text) if finish.reason == "stop" else text == finish.text
    assert {cell.state for cell in last} == {"final"}
    assert all(cell.confidence is not None and 0 <= cell.confidence <= 1 for cell in last)
    assert all(1 <= cell.settled <= len(trace.frames) for cell in last)
    for before, after in pairwise(trace.frames):
        # Half a character at the end is read otherwise once the rest is there.
        final = [replace(cell, text="") for cell in before.cells if cell.state == "final"]
        assert [replace(cell, text="") for cell in after.cells[: len(final)]] == final[: len(after.cells)]
    settled = [sum(cell.settled == frame.step for cell in frame.cells) for frame in trace.frames]
    assert all(settled) or options["mode"] != "ar"
