"""Replays of templates: fixed texts and gaps in place, pass by pass."""

from collections.abc import Sequence
from typing import Any
from typing import cast

import pytest

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import FilledText
from dllm_plugins import Finish
from dllm_plugins import Gap
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins.events import Event
from dllm_plugins.events import Filled
from dllm_plugins.events import GapDraft
from dllm_plugins.events import TokenLogprob
from dllm_plugins.text.tokenizer import TextTokenizer
from dllm_plugins.traces import Cell
from dllm_plugins.traces import Frame
from dllm_plugins.traces import Recorder
from dllm_plugins.traces import Trace

from ..modes.tiny_models import EOS
from ..modes.tiny_models import MASK
from ..modes.tiny_models import random_model
from .test_recorder import TOKENIZER
from .test_recorder import USAGE
from .test_recorder import ids

Tokens = tuple[int | None, ...]
TEMPLATE = Template("once", Gap(tokens=6), " upon", Gap(max_tokens=9), " a time", Gap(max_tokens=5))


def recorded(template: Template, events: list[Event]) -> tuple[Frame, ...]:
    recorder = Recorder(TOKENIZER, template)
    for event in events:
        recorder.take(event)
    return recorder.trace((), "dllm").frames


def drafted(step: int, *gaps: GapDraft) -> Draft:
    return Draft(1, step, (), "", gaps=gaps)


def gap(tokens: Tokens, final: int, guesses: Tokens, *sure: float | None) -> GapDraft:
    return GapDraft(tokens, final, "", guesses, sure)


def test_each_gap_stands_between_its_texts() -> None:
    """Final, committed, guessed and open positions of several gaps at once; the end may cut one."""
    a, b, c, d = ids("abcd")
    frames = recorded(
        Template("x ", Gap(tokens=2), " y", Gap(max_tokens=2)),
        [
            drafted(
                1, GapDraft((a, None), 1, "", (a, b), (0.5, 0.25)), GapDraft((None, c), 0, "", (None, c), (None, 1))
            ),
            drafted(2, GapDraft((a, b), 2, "", (a, b), (0.5, 0.75)), GapDraft((d, c), 1, "", (d, c), (0.5, 1))),
            Finish(
                *(1, 3, "eos", (a, b, *ids(" y"), d), "", USAGE),
                gaps=(Filled((a, b), "ab", "length"), Filled((d,), "d", "eos", (TokenLogprob(d, 0.0),))),
            ),
        ],
    )
    x, y, first = Cell("x ", "fixed"), Cell(" y", "fixed"), Cell("a", "final", 0.5, 1)
    c_, d_ = Cell("c", "committed", 1, 1), Cell("d", "final", 0.5, 2)
    assert frames[0].cells == (x, first, Cell("b", "guess", 0.25), y, Cell(), c_)
    assert frames[1].cells == (x, first, Cell("b", "final", 0.75, 2), y, d_, c_)
    assert frames[2].cells == (x, first, Cell("b", "final", 0.75, 2), y, d_)
    assert [frame.text for frame in frames] == ["x ab yc", "x ab ydc", "x ab yd"]


def test_a_gap_that_grows_keeps_what_is_known_of_its_tokens() -> None:
    """Also of those that have moved; what stands between them is new."""
    a, b, c = ids("abc")
    frames = recorded(
        Template(Gap(max_tokens=4), "."),
        [
            drafted(1, gap((a, b), 0, (a, b), 0.5, 0.25)),
            drafted(2, gap((a, None, None, b), 0, (a, None, None, b), 0.5, None, None, 0.25)),
            drafted(3, gap((a, c, b), 0, (a, c, b), 0.5, 1, 0.25)),
        ],
    )
    one, two = Cell("a", "committed", 0.5, 1), Cell("b", "committed", 0.25, 1)
    assert frames[1].cells == (one, Cell(), Cell(), two, Cell(".", "fixed"))
    assert frames[2].cells == (one, Cell("c", "committed", 1, 3), two, Cell(".", "fixed"))


def check(model: Model, template: Template, **options: Any) -> None:
    """The replay of a template holds a frame for every pass, its texts in every frame, and ends in what was made."""
    recorder = Recorder(model.tokenizer, template)
    found = model.fill(template, told=recorder.take, logprobs=0, **options)
    assert (found.text, found.gaps) == ((same := model.fill(template, **options)).text, same.gaps)
    check_frames(recorder.trace(template.chat, model.name), found, template)


def check_frames(trace: Trace, found: FilledText, template: Template) -> None:
    assert (trace.usage, len(trace.frames)) == (found.usage, found.usage.total_passes)
    fixed = [part for part in template.parts if isinstance(part, str)]
    for frame in trace.frames:
        assert [cell.text for cell in frame.cells if cell.state == "fixed"] == fixed
    last = trace.frames[-1]
    assert last.text == found.text
    written = [cell for cell in last.cells if cell.state != "fixed"]
    assert {cell.state for cell in written} == {"final"}
    assert all(1 <= cell.settled <= len(trace.frames) for cell in written)
    assert all(cell.confidence is not None for cell in written)
    assert len(written) == found.usage.useful_tokens


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}, {"rule": "quota", "steps": 2}], ids=str)
def test_the_default_model(tiny: Model, options: dict[str, Any]) -> None:
    """Whose gaps end early, behind a chat, too."""
    check(tiny, TEMPLATE, **options)
    check(tiny, Template(Gap(max_tokens=7), " sky", chat=[{"role": "user", "content": "why?"}]), **options)


class Letters:
    """One letter a token, and texts that nobody has to read."""

    def encode(self, text: str, **_options: Any) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        kept = [token for token in token_ids if not (skip_special_tokens and token in (EOS, MASK))]
        return "".join(chr(ord("a") + token) for token in kept)


@pytest.mark.parametrize("mode", ["llada", "dream", "wino", "sdar"])
def test_whole_canvases_and_blocks(mode: str) -> None:
    """Where gaps behind the first are written before it is done."""
    model, letters = random_model(mode, cache="none", block_length=64), cast(TextTokenizer, Letters())
    template = Template("abc", Gap(tokens=3), "hi", Gap(max_tokens=4), "k")
    parts = [part if isinstance(part, Gap) else letters.encode(part) for part in template.parts]
    config = SamplingConfig(mode=mode, logprobs=0, temperature=1.0, seed=5)
    recorder = Recorder(letters, template)
    for event in model.engine().stream(Request((), config, template=parts, tokenizer=letters)):
        recorder.take(event)
    check_frames(recorder.trace((), mode), FilledText.of(template, cast(Finish, event)), template)


def test_a_draft_holds_what_may_yet_become_a_stop_string() -> None:
    """Nothing of a gap is lost between what is final and what is drafted; a token is a letter here."""
    model, letters = random_model("llada", cache="none", block_length=64), cast(TextTokenizer, Letters())

    def events(stop: tuple[str, ...]) -> list[Event]:
        config = SamplingConfig(mode="llada", temperature=1.0, seed=5, stop=stop)
        request = Request((3,), config, template=[Gap(max_tokens=12), [4]], tokenizer=letters)
        return list(model.engine().stream(request))

    [written] = cast(Finish, events(())[-1]).gaps
    held, known = 0, 0
    for event in events(tuple(f"{letter}~" for letter in written.text)):
        if isinstance(event, Commit):
            known += len(event.gaps[0])
        elif isinstance(event, Draft):
            [last] = event.gaps
            assert known + len(last.text) + last.guesses.count(EOS) == len(last.guesses) == 12
            held += last.tokens[last.final] is not None
    assert held
