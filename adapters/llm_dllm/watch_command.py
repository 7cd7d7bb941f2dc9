"""The command `llm dllm watch`."""

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import Usage
from dllm_plugins.template import ROOM
from dllm_plugins.template import Gap
from dllm_plugins.template import Growing
from dllm_plugins.template import Template
from llm_dllm.commands import choice_of
from llm_dllm.commands import config_of
from llm_dllm.commands import wanted_in
from llm_dllm.growing_text import THOUGHT
from llm_dllm.growing_text import GrowingText
from llm_dllm.loading import DEFAULT
from llm_dllm.loading import LoadChoice
from llm_dllm.schemas import schema_of
from llm_dllm.tracing import Asked
from llm_dllm.tracing import say_the_end
from llm_dllm.tracing import trace_option
from llm_dllm.tracing import traced
from llm_dllm.waiting import waiting

_BETWEEN = " · "


@click.command()
@click.argument("prompt")
@click.option("-o", "--option", "options", type=(str, str), multiple=True, help="Option of the model: NAME VALUE.")
@click.option("-s", "--system", help="System prompt.")
@click.option("--gap", "marker", help="What marks a gap in PROMPT, which is then a text to fill.")
@click.option("--suffix", help="Text behind a gap; PROMPT is then the text before it.")
@click.option("--schema", help="What the answer must be: JSON schema, its short form, a file, or a stored id.")
@click.option("--schema-multi", help="The same for several results.")
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
@trace_option
def watch(
    prompt: str,
    options: tuple[tuple[str, str], ...],
    system: str | None,
    marker: str | None,
    suffix: str | None,
    schema: str | None,
    schema_multi: str | None,
    model: str,
    trace: Path | None,
) -> None:
    """Show an answer while it is denoised, then its statistics.

    They are one line; with `-o stats true` times by part follow. With --gap or --suffix gaps of a text are filled.
    """
    console = Console(file=sys.stdout)
    with clean_errors():
        choice, (config, extras) = choice_of(model), wanted_in(options, schema_of(schema, schema_multi))
        given = config.given()
        asked = _asked(prompt, system, marker, suffix, given)
        if isinstance(asked, Template):
            config_of(options)
        with closing(traced(asked, given, choice, trace, extras)) as source:
            show = _watch_live if console.is_terminal else _watch_plain
            finish = show(source, console, choice, asked)
    say_the_end(finish, trace)
    click.echo("\n".join(_figures(finish.usage, console)))
    if finish.usage.parts is not None:
        from dllm_plugins.engine.profile import table

        click.echo("\n".join(table(finish.usage.parts, finish.usage.total_passes)))


def _asked(prompt: str, system: str | None, marker: str | None, suffix: str | None, given: dict[str, Any]) -> Asked:
    """A chat, or a text to fill, whose gaps then say how long they may get."""
    if marker is None and suffix is None:
        chat = [{"role": "user", "content": prompt}]
        return [{"role": "system", "content": system}, *chat] if system else chat
    if marker is not None and suffix is not None:
        raise RequestError(f"--gap {marker!r} and --suffix {suffix!r} both say where a gap is; give one of them")
    if system is not None:
        raise RequestError(
            f"with --gap or --suffix PROMPT is a text, which has no system prompt; leave --system {system!r} out, or "
            f"use `llm dllm fill`, which has --prompt and --system"
        )
    gap = Gap(max_tokens=given.pop("max_new_tokens", ROOM))
    if marker is not None:
        return Template.of_text(prompt, gap, marker)
    # The answer is what fills the gap, so that is what it must be.
    return Template(prompt, replace(gap, constraint=given.pop("constraint", None)), suffix or "")


def _figures(usage: Usage, console: Console) -> list[str]:
    """One line, or as many as a narrow terminal needs, none of them cut within a figure."""
    if not console.is_terminal:
        return [usage.summary()]
    lines: list[str] = []
    for figure in usage.summary().split(_BETWEEN):
        if lines and cell_len(longer := f"{lines[-1]}{_BETWEEN}{figure}") <= console.width:
            lines[-1] = longer
        else:
            lines.append(figure)
    return lines


def _thought(event: Event) -> str:
    """What an event makes final of the model's thinking."""
    return event.reasoning if isinstance(event, Commit) else ""


def _new_text(event: Event, growing: Growing | None) -> str:
    """What an event makes final."""
    if growing is not None:
        return growing.of(event)
    return event.text if isinstance(event, Commit) else ""


def _watch_plain(
    source: Generator[Event, None, None], _console: Console, choice: LoadChoice, asked: Asked = ()
) -> Finish:
    """A plain stream of final text."""
    growing = Growing(asked) if isinstance(asked, Template) else None
    with waiting(choice.model_id) as arrived:
        for event in source:
            arrived()
            # As llm shows it.
            click.echo(click.style(_thought(event), dim=True), nl=False, err=True)
            click.echo(_new_text(event, growing), nl=isinstance(event, Finish))
            if isinstance(event, Finish):
                return event
    raise AssertionError("a stream ends with Finish")


def _watch_live(
    source: Generator[Event, None, None], console: Console, choice: LoadChoice = DEFAULT, asked: Asked = ()
) -> Finish:
    """The canvas in place: final text, drafts in colour, open positions as dots, what is fixed between as it is."""
    growing = Growing(asked) if isinstance(asked, Template) else None
    with waiting(choice.model_id) as arrived, GrowingText(console) as view:
        for event in source:
            arrived()
            view.add(_thought(event), THOUGHT)
            view.add(_new_text(event, growing))
            if isinstance(event, Finish):
                return event
            if isinstance(event, Draft):
                drafts = [gap.text for gap in event.gaps]
                view.show(*([(event.reasoning + event.text, False)] if growing is None else growing.behind(drafts)))
    raise AssertionError("a stream ends with Finish")
