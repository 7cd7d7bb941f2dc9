"""The command `llm dllm watch`."""

import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import click
from rich.cells import cell_len
from rich.console import Console

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import Usage
from llm_dllm.commands import choice_of
from llm_dllm.commands import config_of
from llm_dllm.growing_text import GrowingText
from llm_dllm.loading import DEFAULT
from llm_dllm.loading import Choice
from llm_dllm.loading import loaded_model
from llm_dllm.model import cut_short
from llm_dllm.model import events
from llm_dllm.waiting import waiting

_BETWEEN = " · "


@click.command()
@click.argument("prompt")
@click.option("-o", "--option", "options", type=(str, str), multiple=True, help="Option of the model: NAME VALUE.")
@click.option("-s", "--system", help="System prompt.")
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page here that replays the passes.",
)
def watch(
    prompt: str, options: tuple[tuple[str, str], ...], system: str | None, model: str, trace: Path | None
) -> None:
    """Show an answer while it is denoised, then its statistics.

    They are one line; with `-o stats true` times by part follow.
    """
    chat = [{"role": "user", "content": prompt}]
    if system:
        chat.insert(0, {"role": "system", "content": system})
    console = Console(file=sys.stdout)
    with clean_errors():
        choice, config = choice_of(model), config_of(options)
        with closing(_source(chat, config, choice, trace)) as source:
            finish = _watch_live(source, console, choice) if console.is_terminal else _watch_plain(source, choice)
    if finish.reason == "context":
        click.echo(cut_short(finish.usage), err=True)
    if trace is not None:
        click.echo(f"{trace} replays it; open it in a browser.", err=True)
    click.echo("\n".join(_figures(finish.usage, console)))
    if finish.usage.parts is not None:
        from dllm_plugins.engine.profile import table

        click.echo("\n".join(table(finish.usage.parts, finish.usage.total_passes)))


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


def _source(
    chat: list[dict[str, str]], config: SamplingConfig, choice: Choice, trace: Path | None
) -> Generator[Event, None, None]:
    """The events of the answer; what came of it is written to `trace`, also if it is broken off.

    :raises OptionError: if that file cannot be written.
    """
    if trace is None:
        yield from events(chat, config, choice)
        return
    if not trace.absolute().parent.is_dir():
        raise OptionError(f"there is no folder {trace.absolute().parent} for --trace {trace}; make it, or name another")
    from dllm_plugins.traces import Recorder
    from dllm_plugins.traces import page

    config = config if config.logprobs is not None else config.with_options(logprobs=0)
    recorder = Recorder(loaded_model(choice).model.tokenizer)
    try:
        for event in events(chat, config, choice):
            recorder.take(event)
            yield event
    finally:
        made = recorder.trace(chat, choice.model_id)
        if made.frames:
            trace.write_text(page(made), encoding="utf-8")


def _watch_plain(source: Generator[Event, None, None], choice: Choice) -> Finish:
    """A plain stream of final text."""
    with waiting(choice.model_id) as arrived:
        for event in source:
            arrived()
            if isinstance(event, Commit):
                click.echo(event.text, nl=False)
            elif isinstance(event, Finish):
                click.echo()
                return event
    raise AssertionError("a stream ends with Finish")


def _watch_live(source: Generator[Event, None, None], console: Console, choice: Choice = DEFAULT) -> Finish:
    """The canvas in place: final text, drafts in colour, open positions as dots."""
    with waiting(choice.model_id) as arrived, GrowingText(console) as view:
        for event in source:
            arrived()
            if isinstance(event, Commit):
                view.add(event.text)
            elif isinstance(event, Draft):
                view.show(event.text)
            elif isinstance(event, Finish):
                return event
    raise AssertionError("a stream ends with Finish")
