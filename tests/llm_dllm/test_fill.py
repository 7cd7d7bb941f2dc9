"""`llm dllm fill`, and `llm -m dllm` with the option suffix."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import Result

from dllm_plugins import Gap
from dllm_plugins import Grammar
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Template
from dllm_plugins.template import MARKER
from llm_dllm.loading import loaded_model

Run = Callable[..., Result]
TEXT = "once<fill> upon<fill> a time"


@pytest.fixture
def model(tiny_llm: None) -> Model:
    """What the commands load."""
    return loaded_model().model


def shown(text: str) -> str:
    """As the terminal of a test shows it."""
    return text.encode(errors="replace").decode()


def filled(model: Model, gap: Gap, **options: Any) -> Any:
    return model.fill(Template.of_text(TEXT, gap), **options)


def test_the_whole_text_or_its_gaps(run: Run, model: Model) -> None:
    """From an argument; what is printed is what Python gives."""
    found = filled(model, Gap(max_tokens=5))
    assert run("dllm", "fill", TEXT, "--max-tokens", "5").stdout == shown(found.text) + "\n"
    only = run("dllm", "fill", TEXT, "--max-tokens", "5", "--only-gaps").stdout
    assert only == shown("".join(f"{gap}\n" for gap in found.gaps))


def test_where_the_text_comes_from(run: Run, model: Model, tmp_path: Path) -> None:
    """Stdin, a file, and two texts around one gap; markers of one's own."""
    expected = shown(filled(model, Gap(tokens=4)).text) + "\n"
    assert run("dllm", "fill", "--tokens", "4", input=TEXT).stdout == expected
    assert run("dllm", "fill", "-", "--tokens", "4", input=TEXT).stdout == expected
    (tmp_path / "text").write_text(TEXT)
    assert run("dllm", "fill", "-f", str(tmp_path / "text"), "--tokens", "4").stdout == expected
    other = TEXT.replace(MARKER, "__")
    assert run("dllm", "fill", other, "--gap", "__", "--tokens", "4").stdout == expected
    around = model.fill(Template("once", Gap(max_tokens=6), " upon\n"))
    (tmp_path / "suffix").write_text(" upon\n")
    for suffix in (("--suffix", " upon\n"), ("--suffix-file", str(tmp_path / "suffix"))):
        result = run("dllm", "fill", "--prefix", "once", *suffix, "-o", "max_tokens", "6")
        assert result.stdout == shown(around.text)


def test_options_of_the_model(run: Run, model: Model) -> None:
    """Those of every prompt; a seed repeats what is drawn."""
    found = filled(model, Gap(max_tokens=5), temperature=1.0, seed=3)
    shown_ = run("dllm", "fill", TEXT, "--max-tokens", "5", "-o", "temperature", "1", "-o", "seed", "3")
    assert shown_.stdout == shown(found.text) + "\n"
    result = run("dllm", "fill", TEXT, "--max-tokens", "5", "-o", "stats", "true")
    assert "tokens/pass" in result.stderr
    assert "forward" in result.stderr
    assert result.stdout == shown(filled(model, Gap(max_tokens=5)).text) + "\n"


def test_behind_a_question(run: Run, model: Model) -> None:
    """The text is then the assistant's, who has read the system prompt."""
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
    found = model.fill(Template("Because", Gap(max_tokens=4), ".", chat=chat))
    result = run("dllm", "fill", "Because<fill>.", "--max-tokens", "4", "-p", "why?", "-s", "be brief")
    assert result.stdout == shown(found.text) + "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no marker"], "no '<fill>'"),
        ([TEXT, "--tokens", "0"], "tokens=0"),
        ([TEXT, "--tokens", "3", "--max-tokens", "4"], "not both"),
        ([TEXT, "--prefix", "a"], "leave the text with markers out"),
        ([TEXT, "-s", "be brief"], "--system goes with --prompt"),
        ([TEXT, "-o", "mode", "ar"], "use mode 'diffusion'"),
        ([TEXT, "-o", "telepathy", "1"], "unknown option telepathy"),
        ([TEXT, "-m", "telepathy"], "unknown model 'telepathy'"),
        (["<fill><fill>"], "side by side"),
    ],
)
def test_refusals_are_one_line(run: Run, arguments: list[str], words: str) -> None:
    """Which says what to do."""
    result = run("dllm", "fill", *arguments, code=1)
    assert words in result.output
    assert "Traceback" not in result.output


DIGITS, SIDES = Regex("[0-9]{2,3}"), Grammar('start: "left" | "right"')
YEAR = {"type": "integer", "minimum": 10, "maximum": 99}


def test_what_gaps_must_be(run: Run, model: Model) -> None:
    """One form for all, and others for single gaps."""
    found = filled(model, Gap(max_tokens=9, constraint=DIGITS))
    assert run("dllm", "fill", TEXT, "--max-tokens", "9", "--regex", DIGITS.pattern).stdout == shown(found.text) + "\n"
    assert all(re.fullmatch(DIGITS.pattern, gap) for gap in found.gaps)
    own = ("--for", "1", "grammar", SIDES.source, "--for", "2", "schema", json.dumps(YEAR))
    for common in ((), ("--regex", "x")):
        printed = run("dllm", "fill", TEXT, "--max-tokens", "9", *common, *own, "--only-gaps").stdout.splitlines()
        assert printed[0] in ("left", "right")
        assert 10 <= int(printed[1]) <= 99
    whole = run("dllm", "fill", TEXT, "--max-tokens", "9", "--for", "2", "regex", "a+b").stdout
    assert re.search("upona+b a time", whole)


def test_what_the_text_must_be(run: Run, model: Model, tmp_path: Path) -> None:
    """A schema in llm's forms, of the whole text."""
    text = '{"name": "<fill>", "age": <fill>}'
    (tmp_path / "dog.json").write_text(json.dumps(llm.schema_dsl("name, age int")))
    for schema in ("name, age int", str(tmp_path / "dog.json")):
        printed = run("dllm", "fill", text, "--max-tokens", "6", "--schema", schema, "--whole").stdout
        found = json.loads(printed)
        assert (list(found), type(found["age"])) == (["name", "age"], int)
        assert printed.startswith('{"name": "')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--regex", "a", "--schema", "name"], "--regex and --schema all say"),
        (["--whole"], "--whole needs a form"),
        (["--for", "3", "regex", "a"], "the text has 2 gaps; give a number from 1 to 2"),
        (["-o", "regex", "a"], "use --regex for each gap, or --regex with --whole"),
        (["--regex", "a", "--whole"], "the text before the first gap does not fit it"),
        (["--regex", "a{9}", "--max-tokens", "3"], "gap 1: the shortest text that fulfils its"),
        (["--for", "2", "regex", "a", "--regex", "once[^a]*", "--whole"], "together with what the gaps must be"),
        (["--regex", "("], "no regular expression"),
    ],
)
def test_forms_that_cannot_be_held(run: Run, arguments: list[str], words: str) -> None:
    """One line, before anything is written."""
    result = run("dllm", "fill", TEXT, *arguments, code=1)
    assert words in result.output
    assert "Traceback" not in result.output


def test_what_an_answer_before_a_suffix_must_be(run: Run, dllm: llm.Model) -> None:
    """The answer is what fills the gap, so that is held to it."""
    options = ("-o", "suffix", " upon", "-o", "max_tokens", "12")
    for more in (("-o", "regex", "[0-9]{2,3}"), ("-o", "grammar", 'start: ("1" | "2") "3"')):
        assert re.fullmatch("[0-9]{2,3}\n", run("-m", "dllm", "once", *options, *more).stdout)
    printed = run("-m", "dllm", "once", *options, "--schema", json.dumps(YEAR)).stdout
    assert 10 <= int(printed) <= 99
    assert re.fullmatch("[0-9]{2}", dllm.prompt("once", suffix=" upon", regex="[0-9]{2}").text())


def test_suffix_of_a_prompt(run: Run, model: Model) -> None:
    """The answer is what stands between, streamed or not, and in the log."""
    expected = model.fill(Template("once", Gap(max_tokens=6), " upon")).gaps[0]
    options = ("-o", "suffix", " upon", "-o", "max_tokens", "6")
    assert run("-m", "dllm", "once", *options).stdout == shown(expected) + "\n"
    assert run("-m", "dllm", "once", *options, "--no-stream").stdout == shown(expected) + "\n"
    assert shown(expected).strip() in run("logs", "-n", "1", "-r").stdout


def test_suffix_in_python(dllm: llm.Model, model: Model) -> None:
    """Without max_tokens a gap has 64 at most."""
    expected = model.fill(Template("once", Gap(max_tokens=64), " upon"))
    response = dllm.prompt("once", suffix=" upon")
    assert response.text() == expected.gaps[0]
    assert response.usage().output == expected.usage.useful_tokens


async def test_suffix_in_asyncio(model: Model) -> None:
    """The same answer."""
    expected = model.fill(Template("once", Gap(max_tokens=6), " upon"), temperature=1.0, seed=2).gaps[0]
    response = llm.get_async_model("dllm").prompt("once", suffix=" upon", max_tokens=6, temperature=1.0, seed=2)
    assert await response.text() == expected


def test_suffix_does_not_go_with_a_conversation(run: Run) -> None:
    """The prompt is the very text, so nobody could tell where a system prompt belongs."""
    result = run("-m", "dllm", "once", "-s", "be brief", "-o", "suffix", " upon", code=1)
    assert "llm dllm fill" in result.output


@pytest.mark.parametrize("command", [("watch", "once"), ("fill", "once<fill>")])
def test_commands_refuse_the_suffix_of_a_prompt(run: Run, command: tuple[str, str]) -> None:
    """They would leave it out; what does the same is named."""
    shown = run("dllm", *command, "-o", "suffix", " upon", code=1).output
    assert "-o suffix ' upon' is an option of `llm -m MODEL` alone; use --suffix of `llm dllm fill` or" in shown


def test_a_replay_is_written(run: Run, model: Model, tmp_path: Path) -> None:
    """Of the very text that is printed."""
    place = tmp_path / "replay.html"
    plain = run("dllm", "fill", TEXT, "--max-tokens", "5").stdout
    result = run("dllm", "fill", TEXT, "--max-tokens", "5", "--trace", str(place))
    assert (result.stdout, result.stderr) == (plain, f"{place} replays it; open it in a browser.\n")
    data = re.search(r'type="application/json">(.*)</script>', place.read_text(encoding="utf-8"))
    assert data is not None
    found = json.loads(data[1])
    fixed = [found["texts"][text] for _, text, state, *_ in found["frames"][0][1] if state == 4]
    assert fixed == ["once", " upon", " a time"]
    assert len(found["frames"]) == filled(model, Gap(max_tokens=5)).usage.total_passes
