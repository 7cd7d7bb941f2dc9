"""`llm dllm watch` on terminals of several sizes: every final line is printed once."""

import io
import json
import random
import re
from collections.abc import Callable
from collections.abc import Generator
from contextlib import redirect_stderr
from pathlib import Path
from typing import IO
from typing import cast

import click
import pytest
from click.testing import Result
from rich.cells import cell_len
from rich.console import Console

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Gap
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins.events import Event
from llm_dllm import watch_command
from llm_dllm.growing_text import GrowingText
from llm_dllm.loading import DEFAULT
from llm_dllm.model import events
from llm_dllm.tracing import traced
from llm_dllm.waiting import waiting

from .screen import Screen

Run = Callable[..., Result]
SIZES = [(80, 24), (40, 10), (13, 3)]
WORDS = "sky light 光の散乱 blue a Rayleigh-scattering 🌈 naïve of wavelengths "
TEXTS = {
    "one paragraph": WORDS * 16,
    "lines": "\n".join(f"{number}. " + WORDS * (number % 3) for number in range(30)),
    "code": "def f(x):\n    if x:\n\treturn  {'a': 1}\n\n\n" * 6,
    "no spaces": "日本語" * 120,
    "signs": "[bold]not[/bold] a\rb\x1b[2J\x07c\x9b1A :smile: \n" * 12,
}


def console_on(screen: Screen) -> Console:
    """Rich's side of it."""
    return Console(
        file=cast(IO[str], screen), force_terminal=True, width=screen.width, height=screen.height, legacy_windows=False
    )


def watched(text: str, screen: Screen, draft: str = "draft ·· words " * 60) -> None:
    """Hand a text out in pieces, with drafts between them."""
    chance = random.Random(1)
    with GrowingText(console_on(screen)) as view:
        while text:
            cut = chance.randint(1, 30)
            view.add(text[:cut])
            view.show((draft[: chance.randint(0, len(draft))], False))
            assert len(screen.lines) - screen.row <= screen.height
            text = text[cut:]


def without_spaces(text: str) -> str:
    """Where lines are broken is the screen's affair."""
    return "".join(text.split())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", TEXTS)
def test_all_of_it_stays_once_and_no_draft_does(name: str, size: tuple[int, int]) -> None:
    """However much longer than the screen answer and drafts are, and however they come in."""
    screen = Screen(*size)
    watched(TEXTS[name], screen)
    shown = without_spaces("".join(screen.lines))
    expected = TEXTS[name].translate({ord(sign): "\ufffd" for sign in "\r\x1b\x07\x9b"})
    assert shown == without_spaces(expected)
    # Indentation and empty lines of what fits the width are as they were.
    short = [line.expandtabs() for line in TEXTS["code"].split("\n")]
    if name == "code" and max(map(len, short)) <= size[0]:
        assert [line.rstrip() for line in screen.lines[: len(short)]] == [line.rstrip() for line in short]


def test_drafts_are_drawn_and_drawn_over() -> None:
    """As much of them as the screen holds, beginning where the final text ends."""
    screen = Screen(20, 4)
    with GrowingText(console_on(screen)) as view:
        view.add("The sky")
        view.show((" is ··· " + "blue " * 50, False))
        assert screen.lines[0].startswith("The sky is ···")
        assert len(screen.lines) <= 4
        view.add(" is red")
        view.show()
        assert [line for line in screen.lines if line] == ["The sky is red"]
    assert [line for line in screen.lines if line] == ["The sky is red"]


def test_what_was_final_stays_after_an_interrupt() -> None:
    """The cursor is shown again, and no draft is left."""
    screen = Screen(20, 4)
    with pytest.raises(KeyboardInterrupt), GrowingText(console_on(screen)) as view:
        view.add("The sky")
        view.show((" is ···", False))
        raise KeyboardInterrupt
    assert [line for line in screen.lines if line] == ["The sky"]


@pytest.mark.parametrize("mode", ["diffusion", "speculative", "ar"])
@pytest.mark.parametrize("size", [(60, 12), (30, 6)], ids=str)
def test_an_answer_higher_than_the_screen(size: tuple[int, int], mode: str) -> None:
    """The engine's own events, in every mode."""
    screen = Screen(*size)
    chat = [{"role": "user", "content": "why?"}]
    finish = watch_command._watch_live(events(chat, SamplingConfig(max_new_tokens=120, mode=mode)), console_on(screen))
    shown = without_spaces("".join(screen.lines))
    signs = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
    assert shown == without_spaces(finish.text.translate(signs))


@pytest.mark.parametrize("width", [200, 101, 80, 40, 20])
def test_figures_fit_the_width(run: Run, width: int) -> None:
    """Broken between figures only; in a pipe they stay one line."""
    chat = [{"role": "user", "content": "why?"}]
    screen = Screen(width, 24)
    usage = watch_command._watch_live(events(chat, SamplingConfig(max_new_tokens=8)), console_on(screen)).usage
    lines = watch_command._figures(usage, console_on(screen))
    assert all(cell_len(line) <= width for line in lines)
    assert " · ".join(lines) == usage.summary()
    assert (len(lines) == 1) == (cell_len(usage.summary()) <= width)
    assert watch_command._figures(usage, Console(file=io.StringIO(), width=width)) == [usage.summary()]


def test_a_sign_of_life_until_the_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who runs a command: at once, and gone without a trace, whatever ends it."""
    stderr = Screen(80, 24)
    monkeypatch.setenv("TERM", "xterm")
    with click.Context(click.Command("llm")), redirect_stderr(cast(IO[str], stderr)):
        with waiting("dllm") as arrived:
            assert "dllm" in stderr.lines[0]
            arrived()
            assert not "".join(stderr.lines).strip()
            arrived()
        with pytest.raises(ValueError, match="no weights"), waiting("dllm"):
            assert "dllm" in "".join(stderr.lines)
            raise ValueError("no weights")
    assert not "".join(stderr.lines).strip()


def test_no_sign_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has run a command of ours."""
    stderr = Screen(80, 24)
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(cast(IO[str], stderr)), waiting("dllm") as arrived:
        arrived()
    assert stderr.lines == [""]


def test_no_sign_in_a_pipe(run: Run) -> None:
    """Nor anything else."""
    assert run("-m", "dllm", "how?", "-o", "max_tokens", "4").stderr == ""
    assert run("dllm", "watch", "how?", "-o", "max_tokens", "4").stderr == ""


def test_a_replay_is_written(run: Run, tmp_path: Path) -> None:
    """The passes of the very answer that is shown, with how sure each token was; what is printed is as ever."""
    place, options = tmp_path / "replay.html", ("-o", "max_tokens", "12", "-o", "mode", "diffusion")
    plain = run("dllm", "watch", "why?", "-s", "Be <brief>.", *options)
    shown = run("dllm", "watch", "why?", "-s", "Be <brief>.", *options, "--trace", str(place))
    assert shown.stderr == f"{place} replays it; open it in a browser.\n"
    text = shown.stdout.splitlines()[:-1]
    assert text == plain.stdout.splitlines()[:-1]
    found = re.search(r'<script id="trace" type="application/json">(.*)</script>', place.read_text(encoding="utf-8"))
    assert found is not None
    data = json.loads(found[1])
    assert data["facts"][:3] == [["Model", "dllm"], ["System", "Be <brief>."], ["Question", "why?"]]
    assert shown.stdout.splitlines()[-1] == data["facts"][3][1]
    assert f" {len(data['frames'])} passes " in shown.stdout
    size, last = data["frames"][-1]
    assert size == 12
    assert all(0 <= sure <= 100 for _, _, _, sure, _, _ in last)


def test_what_was_decoded_is_written_when_it_is_broken_off(tmp_path: Path) -> None:
    """Up to there."""
    place = tmp_path / "replay.html"
    chat = [{"role": "user", "content": "why?"}]
    source = traced(chat, {"max_new_tokens": 24, "mode": "ar"}, DEFAULT, place)
    events = [next(source), next(source)]
    assert [type(event) for event in events] == [Commit, Draft]
    assert not place.exists()
    source.close()
    assert '"frames":[[' in place.read_text(encoding="utf-8")


def test_a_replay_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    """Said before anything is decoded."""
    said = run("dllm", "watch", "why?", "--trace", str(tmp_path / "no" / "replay.html"), code=1).stderr
    assert said.startswith(f"Error: there is no folder {tmp_path / 'no'} for --trace")
    assert "is a directory" in run("dllm", "watch", "why?", "--trace", str(tmp_path), code=2).stderr


@pytest.mark.parametrize("size", [(60, 12), (30, 6)], ids=str)
def test_gaps_live(size: tuple[int, int]) -> None:
    """Drafts of all gaps stand between the texts; what stays is the text, filled."""
    template, screen = Template("once", Gap(tokens=4), " upon", Gap(max_tokens=9), " a time"), Screen(*size)
    seen: set[str] = set()

    def spied() -> Generator[Event, None, None]:
        for event in traced(template, {}, DEFAULT, None):
            yield event
            seen.add("".join(screen.lines).strip())

    finish = watch_command._watch_live(spied(), console_on(screen), asked=template)
    whole = template.filled([gap.text for gap in finish.gaps])
    signs = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
    assert without_spaces("".join(screen.lines)) == without_spaces(whole.translate(signs))
    drawn = [without_spaces(shown) for shown in seen if "·" in shown]
    assert drawn
    for shown in drawn:
        assert re.fullmatch(r"once.{4}upon.{9}atime", shown), shown


def test_gaps_of_a_text(run: Run, tmp_path: Path) -> None:
    """As `fill` fills them, with the figures behind it."""
    once = run("dllm", "fill", "once<fill> upon<fill>", "--max-tokens", "5").stdout
    shown = run("dllm", "watch", "once<fill> upon<fill>", "--gap", "<fill>", "-o", "max_tokens", "5").stdout
    assert shown.startswith(once)
    assert "mode diffusion" in shown[len(once) :]
    suffix = run("dllm", "fill", "--prefix", "once", "--suffix", " upon", "--max-tokens", "5").stdout
    shown = run("dllm", "watch", "once", "--suffix", " upon", "-o", "max_tokens", "5").stdout
    assert shown.startswith(suffix)
    shown = run("dllm", "watch", "once", "--suffix", " upon", "-o", "max_tokens", "5", "-o", "regex", "(12|34)").stdout
    assert shown.startswith(("once12 upon", "once34 upon"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a<fill>", "--gap", "<fill>", "--suffix", "b"], "both say where a gap is"),
        (["a", "--suffix", "b", "-s", "brief"], "leave --system 'brief' out"),
        (["no marker", "--gap", "<fill>"], "no '<fill>'"),
        (["a", "--schema", "name", "--schema-multi", "name, age"], "both say what is wanted"),
        (["a", "--schema", '{"type": "object", "not": {}}'], "'not' at #"),
        (["a", "--schema", "name, age", "-o", "regex", "a"], "all say what the answer must be"),
    ],
)
def test_refusals_are_one_line(run: Run, arguments: list[str], words: str) -> None:
    """Which says what to do."""
    result = run("dllm", "watch", *arguments, code=1)
    assert words in result.output
    assert "Traceback" not in result.output


def test_constraints_are_watched(run: Run, tmp_path: Path) -> None:
    """A schema in every form that llm takes, an expression, a grammar; and replayed."""
    schema, place = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}, tmp_path / "s"
    place.write_text(json.dumps(schema))
    run("--schema", "ok bool", "--save", "sure")
    for form in (json.dumps(schema), "ok bool, ", str(place), "t:sure"):
        shown = run("dllm", "watch", "well?", "--schema", form, "-o", "max_tokens", "40").stdout
        assert json.loads(shown.splitlines()[0]).keys() == {"ok"}
    several = run("dllm", "watch", "well?", "--schema-multi", "ok bool, ", "-o", "max_tokens", "60").stdout
    assert isinstance(json.loads(several.splitlines()[0])["items"], list)
    assert run("dllm", "watch", "well?", "-o", "regex", "(yes|no)!").stdout.splitlines()[0] in ("yes!", "no!")
    grammar, page = ("-o", "grammar", 'start: "yes" | "no"'), tmp_path / "replay.html"
    assert run("dllm", "watch", "well?", *grammar, "--trace", str(page)).stdout.splitlines()[0] in ("yes", "no")
    assert '"frames":[[' in page.read_text(encoding="utf-8")
    stored = run("logs", "-n", "1", "--json").stdout
    assert stored == "[]\n"
