"""The command `llm dllm fill`."""

import sys
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TextIO

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Finish
from dllm_plugins.template import MARKER
from dllm_plugins.template import ROOM
from dllm_plugins.template import FilledText
from dllm_plugins.template import Gap
from dllm_plugins.template import Growing
from dllm_plugins.template import Template
from llm_dllm.commands import choice_of
from llm_dllm.commands import config_of
from llm_dllm.fill_forms import form_options
from llm_dllm.fill_forms import told
from llm_dllm.loading import DEFAULT
from llm_dllm.tracing import say_the_end
from llm_dllm.tracing import trace_option
from llm_dllm.tracing import traced
from llm_dllm.waiting import waiting


def asking_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which a command says who is asked, and of what the text is the answer."""
    for option in (
        click.option(
            "-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`."
        ),
        trace_option,
        click.option(
            "-o", "--option", "options", type=(str, str), multiple=True, help="Option of the model: NAME VALUE."
        ),
        click.option("-s", "--system", help="System prompt of that chat."),
        click.option("-p", "--prompt", help="A question that the text answers; it stands before it as a chat."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("text", required=False)
@click.option("-f", "--file", type=click.File(encoding="utf-8"), help="Read the text from a file; - is stdin.")
@click.option("--gap", "marker", default=MARKER, show_default=True, help="What marks a gap in the text.")
@click.option("--prefix", help="Text before one gap, in place of a text with markers.")
@click.option("--prefix-file", type=click.File(encoding="utf-8"), help="A file that holds it.")
@click.option("--suffix", help="Text behind the gap.")
@click.option("--suffix-file", type=click.File(encoding="utf-8"), help="A file that holds it.")
@click.option("--max-tokens", type=int, help=f"Most tokens of a gap; {ROOM} if not given.")
@click.option("--tokens", type=int, help="Exactly so many tokens for every gap.")
@form_options
@click.option("--only-gaps", is_flag=True, help="Print what fills the gaps, one after another, not the whole text.")
@asking_options
def fill(
    text: str | None,
    file: TextIO | None,
    marker: str,
    prefix: str | None,
    prefix_file: TextIO | None,
    suffix: str | None,
    suffix_file: TextIO | None,
    max_tokens: int | None,
    tokens: int | None,
    only_gaps: bool,
    prompt: str | None,
    system: str | None,
    options: tuple[tuple[str, str], ...],
    model: str,
    trace: Path | None,
    own: tuple[tuple[int, str, str], ...],
    whole: bool,
    **forms: str | None,
) -> None:
    """Fill the gaps of TEXT with what fits on both sides.

    A gap is marked in the text: `llm dllm fill 'The capital of <fill> is Rome.'` Without a text, stdin is read, unless
    --prefix or --suffix says what stands around a single gap.
    """
    with clean_errors():
        config = config_of(options)
        given = config.given()
        most = given.pop("max_new_tokens", ROOM if tokens is None else None) if max_tokens is None else max_tokens
        gap = Gap(tokens=tokens, max_tokens=most)
        before, behind = _one(prefix, prefix_file, "--prefix"), _one(suffix, suffix_file, "--suffix")
        chat = chat_of(prompt, system)
        if before is None and behind is None:
            template = Template.of_text(text_of(text, file), gap, marker, chat)
        elif text is not None or file is not None:
            raise RequestError("--prefix and --suffix stand around a gap of their own; leave the text with markers out")
        else:
            template = Template(before or "", gap, behind or "", chat=chat)
        template, held = told(template, config, forms, own, whole=whole)
        choice = choice_of(model)
        growing, finish = Growing(template), None
        with waiting(choice.model_id) as arrived, closing(traced(template, given | held, choice, trace)) as events:
            for event in events:
                arrived()
                new = growing.of(event)
                if new and not only_gaps:
                    click.echo(new, nl=False)
                if isinstance(event, Finish):
                    finish = event
                    _end(FilledText.of(template, event), only_gaps)
    assert finish is not None, "it comes last"
    say_the_end(finish, trace)


def _end(found: FilledText, only_gaps: bool) -> None:
    """What is printed when everything is filled."""
    if only_gaps:
        for text in found.gaps:
            click.echo(text)
    elif not found.text.endswith("\n"):
        click.echo()
    if found.usage.parts is not None:
        from dllm_plugins.engine.profile import table

        lines: Iterator[str] = iter(table(found.usage.parts, found.usage.total_passes))
        click.echo("\n".join((found.usage.summary(), *lines)), err=True)


def text_of(text: str | None, file: TextIO | None) -> str:
    """The text with its gaps: the argument, a file, or stdin."""
    if text is not None and file is not None:
        raise RequestError(f"the text is given twice, as an argument and by --file {file.name}; give one")
    return (file or sys.stdin).read() if text is None or text == "-" else text


def _one(text: str | None, file: TextIO | None, name: str) -> str | None:
    if text is not None and file is not None:
        raise RequestError(f"{name} and {name}-file {file.name} say the same; give one")
    return text if file is None else file.read()


def chat_of(prompt: str | None, system: str | None) -> list[dict[str, str]]:
    """The chat that the text answers; none without a question."""
    if system is not None and prompt is None:
        raise RequestError("--system goes with --prompt, a question that the text answers; give that, too")
    roles = {"system": system, "user": prompt}
    return [{"role": role, "content": content} for role, content in roles.items() if content is not None]
