"""`llm -m dllm`: the engine's text, options, logs, conversations, asyncio."""

import asyncio
import json
import re
import sys
import threading
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import Result

from dllm_plugins import SamplingConfig
from dllm_plugins.engine.profile import PARTS
from dllm_plugins.errors import OptionError
from llm_dllm.loading import loaded_model
from llm_dllm.named_files import named_places
from llm_dllm.options import Options
from llm_dllm.options import to_config

Run = Callable[..., Result]
Answer = Callable[..., str]
ASK = [{"role": "user", "content": "why?"}]


def same(shown: str, text: str) -> bool:
    """What a terminal shows against the engine's text; random bytes may not be printable."""
    return shown.encode(errors="replace").decode() == text.encode(errors="replace").decode() + "\n"


@pytest.mark.parametrize("mode", ["speculative", "diffusion", "ar"])
@pytest.mark.parametrize("stream", [True, False])
def test_prints_what_the_engine_answers(run: Run, answer: Answer, mode: str, stream: bool) -> None:
    """Streamed or at once."""
    options = ["-o", "mode", mode, "-o", "max_tokens", "24"]
    shown = run("-m", "dllm", "why?", *options, *([] if stream else ["--no-stream"])).stdout
    text = answer(ASK, mode=mode, max_new_tokens=24)
    assert text
    assert same(shown, text)


def test_log_holds_usage_and_statistics(run: Run) -> None:
    """`llm logs --json` has the tokens and all figures of the engine."""
    run("-m", "dllm", "why?", "-o", "max_tokens", "24", "-o", "seed", "3", "-o", "temperature", "0.7")
    logged = json.loads(run("logs", "--json").stdout)[0]
    statistics = logged["response_json"]
    if isinstance(statistics, str):
        statistics = json.loads(statistics)
    assert logged["output_tokens"] == statistics["useful_tokens"] == 24
    assert logged["input_tokens"] == statistics["prompt_tokens"] > 0
    assert statistics["tokens_per_forward"] == round(24 / statistics["total_passes"], 4)
    assert statistics["mode"] == "speculative"
    assert statistics["cache"] == "exact"
    assert statistics["seed"] == 3
    assert statistics["finish_reason"] == "length"


def test_log_holds_times_by_part(run: Run) -> None:
    """`-o stats true`; without it there is no such field."""
    for options, parts in (([], None), (["-o", "stats", "true"], set(PARTS))):
        run("-m", "dllm", "why?", "-o", "max_tokens", "8", *options)
        statistics = json.loads(run("logs", "--json", "-n", "1").stdout)[0]["response_json"]
        if isinstance(statistics, str):
            statistics = json.loads(statistics)
        found = statistics.get("parts")
        assert (found if found is None else {name for name in found if "/" not in name}) == parts


@pytest.mark.parametrize("at", ["settling", "final"])
def test_log_holds_log_probabilities(run: Run, at: str) -> None:
    """`-o logprobs`: in OpenAI's shape, an entry for each token of the answer, whatever is streamed; else nothing."""
    run("-m", "dllm", "why?", "-o", "max_tokens", "8", "-o", "logprobs", "2", "-o", "logprobs_at", at)
    statistics = json.loads(run("logs", "--json", "-n", "1").stdout)[0]["response_json"]
    content = statistics["logprobs"]["content"]
    assert len(content) == statistics["useful_tokens"] == 8
    assert statistics["passes"].get("look", 0) == (at == "final")
    for entry in content:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["top_logprobs"][0] == {name: entry[name] for name in ("token", "logprob", "bytes")}
        assert entry["top_logprobs"][1]["logprob"] <= entry["logprob"] < 0
    run("-m", "dllm", "why?", "-o", "max_tokens", "8")
    assert "logprobs" not in json.loads(run("logs", "--json", "-n", "1").stdout)[0]["response_json"]


def test_conversation_and_system_prompt(run: Run, answer: Answer) -> None:
    """`llm -c` and `llm chat` send the whole history."""
    first = run("-m", "dllm", "why?", "-s", "be brief", "-o", "max_tokens", "8").stdout
    text = answer([{"role": "system", "content": "be brief"}, *ASK], max_new_tokens=8)
    assert same(first, text)
    history = [
        {"role": "system", "content": "be brief"},
        *ASK,
        {"role": "assistant", "content": text},
        {"role": "user", "content": "and then?"},
    ]
    second = run("-c", "and then?", "-o", "max_tokens", "8").stdout
    assert same(second, answer(history, max_new_tokens=8))


def test_chat_keeps_the_history(run: Run, answer: Answer) -> None:
    """Two turns of `llm chat -m dllm`."""
    shown = run("chat", "-m", "dllm", "-o", "max_tokens", "8", input="why?\nand then?\nquit\n").stdout
    first = answer(ASK, max_new_tokens=8)
    history = [*ASK, {"role": "assistant", "content": first}, {"role": "user", "content": "and then?"}]
    assert first in shown
    assert answer(history, max_new_tokens=8) in shown


def test_every_option_reaches_the_engine() -> None:
    """The two lists of options are the same, but for llm's usual name max_tokens, and for what an answer
    must be, the text behind it, and thinking, which is about the prompt."""
    own, engine = {"max_tokens", "regex", "grammar", "suffix", "thinking"}, {"max_new_tokens", "constraint"}
    assert {*Options.model_fields} - own == {*SamplingConfig.model_fields} - engine
    values: dict[str, Any] = {
        "mode": "diffusion",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.9,
        "seed": 5,
        "stop": "\n",
        "draft_length": 2,
        "block_length": 4,
        "rule": "factor",
        "threshold": 0.7,
        "factor": 2.0,
        "steps": 3,
    }
    given = to_config(Options(**values)).given()
    expected = {name: value for name, value in values.items() if name != "max_tokens"}
    assert given == expected | {"max_new_tokens": 9, "stop": ("\n",)}


def test_stop_takes_a_string_or_a_list() -> None:
    """A JSON list is a list; a string that only looks like one is a string."""
    assert to_config(Options.model_validate({"stop": "END"})).stop == ("END",)
    assert to_config(Options.model_validate({"stop": '["END", "\\n"]'})).stop == ("END", "\n")
    assert to_config(Options.model_validate({"stop": "[END"})).stop == ("[END",)


def test_stop_string_cuts_the_answer(run: Run, answer: Answer) -> None:
    """In mid-canvas."""
    whole = answer(ASK, mode="diffusion", max_new_tokens=40)
    stop = whole[7:9]
    shown = run("-m", "dllm", "why?", "-o", "mode", "diffusion", "-o", "max_tokens", "40", "-o", "stop", stop).stdout
    assert same(shown, whole[: whole.index(stop)])


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("mode", "telepathy", "speculative, diffusion, ar"),
        ("temperature", "-1", "temperature"),
        ("max_tokens", "0", "max_tokens=0"),
        ("threshold", "0.5", "threshold"),
        ("top_p", "0.9", "temperature"),
        ("steps", "many", "steps"),
        ("telepathy", "1", "telepathy"),
    ],
)
def test_bad_options_end_in_one_clear_line(run: Run, option: str, value: str, words: str) -> None:
    """Exit code 1, the value and the remedy, no traceback."""
    result = run("-m", "dllm", "why?", "-o", option, value, code=1)
    assert words in result.output
    assert "Traceback" not in result.output


def test_empty_prompt_and_attachments_are_refused(dllm: llm.Model) -> None:
    """What the model cannot read is not dropped silently."""
    with pytest.raises(llm.ModelError, match="empty"):
        dllm.prompt("   ").text()
    with pytest.raises(llm.ModelError, match="text only"):
        list(dllm.prompt(messages=[llm.parts.Message("user", [llm.parts.ReasoningPart("hm")])]))
    with pytest.raises(ValueError, match="attachments"):
        dllm.prompt("why?", attachments=[llm.Attachment(type="image/png", content=b"x")]).text()


def test_not_set_up_says_how(run: Run, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """First use without the base weights."""
    monkeypatch.delenv("DLLM_BASE")
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "none"))
    result = run("-m", "dllm", "why?", code=1)
    assert "python -m dllm_plugins setup" in result.output


def test_leaving_early_frees_the_row(dllm: llm.Model) -> None:
    """A consumer that stops reading."""
    response = iter(dllm.prompt("why?", max_tokens=200))
    next(response)
    shared = loaded_model()
    assert shared._engine.active
    del response
    assert not shared._engine.active


def test_two_streams_at_once(dllm: llm.Model, answer: Answer) -> None:
    """Interleaved responses of one thread do not wait for each other."""
    responses = [dllm.prompt(text, max_tokens=12) for text in ("why?", "how?")]
    parts = list(zip(*zip_longest(*responses, fillvalue=""), strict=True))
    assert "".join(parts[0]) == answer(ASK, max_new_tokens=12)
    assert "".join(parts[1]) == answer([{"role": "user", "content": "how?"}], max_new_tokens=12)


async def test_async_gives_the_same_text_and_leaves_the_loop_free(answer: Answer) -> None:
    """Passes run outside the event loop's thread, many callers at once."""
    model = llm.get_async_model("dllm")
    ticks, done = 0, False

    async def tick() -> None:
        nonlocal ticks
        while not done:
            ticks += 1
            await asyncio.sleep(0)

    async def ask(number: int) -> tuple[str, int | None]:
        response = model.prompt("why?", max_tokens=10 + number)
        text = await response.text()
        return text, (await response.usage()).output

    clock = asyncio.create_task(tick())
    found = await asyncio.gather(*(ask(number) for number in range(12)))
    done = True
    await clock
    for number, (text, output) in enumerate(found):
        assert text == answer(ASK, max_new_tokens=10 + number)
        assert output == 10 + number
    assert ticks > 12


async def test_cancelled_task_frees_its_row(answer: Answer) -> None:
    """And the model answers the next caller."""
    model = llm.get_async_model("dllm")
    started = asyncio.Event()

    async def ask() -> None:
        async for _ in model.prompt("why?", max_tokens=200):
            started.set()

    task = asyncio.create_task(ask())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The pass that was under way goes on in its thread; the next caller waits for it.
    assert await model.prompt("why?", max_tokens=8).text() == answer(ASK, max_new_tokens=8)
    assert not loaded_model()._engine.active
    assert threading.active_count() < 50


def test_help_shows_options_with_ranges(run: Run) -> None:
    """`llm models --options`."""
    shown = " ".join(run("models", "--options", "-m", "dllm").stdout.split())
    for words in ("above 0.0, at most 1.0", "at least 1, at most 1024", "speculative (lossless"):
        assert words in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["telepathy", "1"], ["unknown option telepathy='1'", "max_tokens", "preset_options"]),
        (["max_new_tokens", "9"], ["unknown option max_new_tokens='9'", "max_tokens"]),
        (["top_k", "many"], ["option top_k='many'", "integer"]),
        (["stop", '["a", 1]'], ["option stop.1=1", "string"]),
        (["stop", '[["a"]]'], ["option stop.0=['a']", "string"]),
        (["stop", ""], ["option stop=['']: a stop string is empty"]),
        (["rule_options", "gamma"], ["option rule_options='gamma'", "JSON object"]),
        (["preset_options", "[1]"], ["option preset_options='[1]': write a JSON object"]),
        (["revoke_options", "[" * 100_000], ["option revoke_options='[[[", " ...: write a JSON object"]),
        (["max_tokens", "x"], ["option max_tokens='x'", "integer"]),
        (["max_tokens", "0"], ["option max_tokens=0", "greater"]),
        (["temperature", "nan"], ["option temperature=nan", "finite"]),
        (["approximate_cache", "both"], ["option approximate_cache='both'", "'prefix' or 'dual'"]),
        (["stats", "null"], ["option stats='null'", "boolean"]),
    ],
)
def test_options_that_are_wrong_are_named_with_their_values(run: Run, options: list[str], words: list[str]) -> None:
    """And the known ones listed, wherever llm takes options."""
    for command in (
        ["-m", "dllm", "how?", "-o"],
        ["chat", "-m", "dllm", "-o"],
        ["dllm", "watch", "how?", "-o"],
        ["dllm", "bench", "-o"],
        ["models", "options", "set", "dllm"],
        ["-m", "dllm", "-s", "short", "--save", "kept", "-o"],
    ):
        output = run(*command, *options, code=1, input="").output
        assert all(word in output for word in words), output
        assert output.count("\n") == 1
        assert "pydantic" not in output
        assert "Value error" not in output
    given: dict[str, Any] = {options[0]: options[1]}
    model = llm.get_model("dllm")
    for prompt in (model.prompt, model.conversation().prompt, llm.get_async_model("dllm").prompt):
        with pytest.raises(OptionError, match=re.escape(words[0])) as caught:
            prompt("how?", **given)
        assert "\n" not in str(caught.value)


def test_values_of_python_that_are_wrong() -> None:
    """Lists, objects and numbers as no command line has them; None is an option that is left out."""
    model = llm.get_model("dllm")
    for given, words in (
        ({"stop": ["a", 1]}, "option stop.1=1: "),
        ({"rule_options": [1]}, "option rule_options=[1]: "),
        ({"seed": 10**5000}, "option seed=a number of 5001 digits: "),
        ({"top_k": "b", "telepathy": 1}, "option top_k='b': "),
    ):
        options: dict[str, Any] = dict(given)
        with pytest.raises(OptionError, match=re.escape(words)) as caught:
            model.prompt("how?", **options)
        assert "\n" not in str(caught.value)
    assert model.prompt("how?", temperature=None, stop=None) is not None


def test_a_script_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are looked for on the command line, which may be empty."""
    for line in (["answer.py"], []):
        monkeypatch.setattr(sys, "argv", line)
        assert named_places() == set()
        assert llm.get_model("dllm").model_id == "dllm"


def test_every_option_says_what_holds_without_it(run: Run) -> None:
    """In words, since llm shows descriptions only."""
    for name, field in Options.model_fields.items():
        assert "default: " in str(field.description) or "if not given" in str(field.description), name
    shown = " ".join(run("models", "--options", "-m", "dllm").stdout.split())
    assert "most tokens to generate (at least 1; default: 256)" in shown


@pytest.mark.parametrize("place", ["./nothing.gguf", "nothing.GGUF", "../nothing", "/no/such/folder", "~/nothing"])
def test_a_path_that_leads_nowhere(run: Run, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It is named, however it is given; only what cannot be another plug-in's name is taken for a path."""
    for arguments in (["-m", place], [f"--model={place}"], [f"-m{place}"]):
        monkeypatch.setattr(sys, "argv", ["llm", "prompt", *arguments, "how?"])
        output = run("prompt", *arguments, "how?", code=1).output
        assert f"there is no {place!r}" in output
        assert "Traceback" not in output
    for arguments in (["-m", "owner/name"], ["-m", "nothing"], ["dllm", "./nothing.gguf"]):
        monkeypatch.setattr(sys, "argv", ["llm", *arguments])
        assert named_places() == set()


def test_a_folder_by_its_path(run: Run, monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[..., Path]) -> None:
    """As a GGUF file by its path."""
    place = str(checkpoint("sdar"))
    monkeypatch.setattr(sys, "argv", ["llm", "-m", place, "how?"])
    assert run("-m", place, "how?", "-o", "max_tokens", "4").stdout


def test_an_answer_that_the_context_ends(run: Run, dllm: llm.Model) -> None:
    """One line on stderr, once, wherever a command asks; in Python the response says it."""
    prompt = "x" * 480
    for command in (["-m", "dllm", prompt], ["dllm", "watch", prompt]):
        for length, said in (("200", 1), ("2", 0)):
            shown = run(*command, "-o", "mode", "ar", "-o", "max_tokens", length)
            assert shown.stderr.count("The context is full") == said
            assert "The context is full" not in shown.stdout
    response = dllm.prompt(prompt, max_tokens=200, mode="ar")
    response.text()
    assert (response.response_json or {})["finish_reason"] == "context"
