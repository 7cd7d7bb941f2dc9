"""Events of what commands ask, written down as a page that replays them if that is wanted."""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.template import Template
from llm_dllm.loading import LoadChoice
from llm_dllm.loading import answering
from llm_dllm.model import NOTHING
from llm_dllm.model import Extras
from llm_dllm.model import cut_short
from llm_dllm.model import events

Asked = Sequence[dict[str, str]] | Template


def trace_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option `--trace`."""
    place = click.Path(dir_okay=False, path_type=Path)
    return click.option("--trace", type=place, help="Write a page here that replays the passes.")(command)


def traced(
    asked: Asked, options: Mapping[str, Any], choice: LoadChoice, trace: Path | None, extras: Extras = NOTHING
) -> Generator[Event, None, None]:
    """The events of an answer to a chat, or of a template that is filled, with these options of decoding.

    What came of it is written to `trace`, also if it is broken off.

    :raises OptionError: if that file cannot be written.
    """
    if trace is None:
        yield from _events(asked, options, choice, extras)
        return
    if not trace.absolute().parent.is_dir():
        raise OptionError(f"there is no folder {trace.absolute().parent} for --trace {trace}; make it, or name another")
    from dllm_plugins.traces import Recorder
    from dllm_plugins.traces import page

    template = asked if isinstance(asked, Template) else None
    recorder = Recorder(answering(choice).model.tokenizer, template)
    try:
        with closing(_events(asked, {"logprobs": 0, **options}, choice, extras)) as source:
            for event in source:
                recorder.take(event)
                yield event
    finally:
        made = recorder.trace(asked.chat if isinstance(asked, Template) else asked, choice.model_id)
        if made.frames:
            trace.write_text(page(made), encoding="utf-8")


def _events(
    asked: Asked, options: Mapping[str, Any], choice: LoadChoice, extras: Extras
) -> Generator[Event, None, None]:
    if not isinstance(asked, Template):
        yield from events(list(asked), SamplingConfig(**options), choice, extras)
        return
    shared = answering(choice)
    yield from shared.stream(shared.model.fill_request(asked, **options))


def say_the_end(finish: Finish, trace: Path | None) -> None:
    """On stderr: that the context has ended an answer, and where its replay is."""
    if finish.reason == "context":
        click.echo(cut_short(finish.usage), err=True)
    if trace is not None:
        click.echo(f"{trace} replays it; open it in a browser.", err=True)
