"""The command `llm dllm edit`."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import TextIO

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.edits import Change
from dllm_plugins.edits import Edit
from dllm_plugins.edits import EditedText
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Finish
from dllm_plugins.template import Growing
from llm_dllm.commands import choice_of
from llm_dllm.commands import config_of
from llm_dllm.fill_command import asking_options
from llm_dllm.fill_command import chat_of
from llm_dllm.fill_command import text_of
from llm_dllm.tracing import say_the_end
from llm_dllm.tracing import traced
from llm_dllm.waiting import waiting


@click.command()
@click.argument("text", required=False)
@click.option("-f", "--file", type=click.File(encoding="utf-8"), help="Read the text from a file; - is stdin.")
@click.option("--span", "spans", multiple=True, metavar="BEGIN:END", help="Characters to write anew, counted from 0.")
@click.option("--find", "words", multiple=True, metavar="WORDS", help="Write every place anew where this stands.")
@click.option("--max-tokens", type=int, help="Most tokens of a span; as many as it has characters if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: the text, and what each span held and holds.")
@asking_options
def edit(
    text: str | None,
    file: TextIO | None,
    spans: tuple[str, ...],
    words: tuple[str, ...],
    max_tokens: int | None,
    as_json: bool,
    prompt: str | None,
    system: str | None,
    options: tuple[tuple[str, str], ...],
    model: str,
    trace: Path | None,
) -> None:
    """Write spans of TEXT anew, and keep the rest as it is.

    What they are is said by --span or --find: `llm dllm edit 'Paris is in Spain.' --find Spain`. Without a text, stdin
    is read. The text is printed, and what was changed on stderr.
    """
    with clean_errors():
        given = config_of(options).given()
        most, constraint = given.pop("max_new_tokens", None), given.pop("constraint", None)
        most, whole = max_tokens or most, text_of(text, file)
        found = [_span(span) for span in spans]
        if words:
            found += Edit.of_words(whole, words).spans
        if not found:
            raise RequestError("nothing says what is to be written anew; give --span BEGIN:END or --find WORDS")
        asked = Edit(whole, found, most, constraint, chat_of(prompt, system))
        choice = choice_of(model)
        growing, finish = Growing(asked.template), None
        with waiting(choice.model_id) as arrived, closing(traced(asked.template, given, choice, trace)) as events:
            for event in events:
                arrived()
                new = growing.of(event)
                if new and not as_json:
                    click.echo(new, nl=False)
                finish = event if isinstance(event, Finish) else finish
    assert finish is not None, "it comes last"
    _end(EditedText.of(asked, finish), as_json=as_json)
    say_the_end(finish, trace)


def _span(given: str) -> tuple[int, int]:
    """`12:17` as two numbers."""
    if re.fullmatch("[0-9]+:[0-9]+", given) is None:
        raise RequestError(f"--span {given!r}: give two numbers of characters, BEGIN:END, counted from 0")
    begin, end = given.split(":")
    return int(begin), int(end)


def _end(found: EditedText, *, as_json: bool) -> None:
    """What is printed when everything is written."""
    if as_json:
        told = {"text": found.text, "changes": [change.as_dict() for change in found.changes]}
        click.echo(json.dumps(told | {"statistics": found.usage.as_dict()}, ensure_ascii=False))
        return
    if not found.text.endswith("\n"):
        click.echo()
    for change in found.changes:
        click.echo(_told(change), err=True)


def _told(change: Change) -> str:
    begin, end = change.span
    if change.before == change.after:
        return f"{begin}:{end} {change.before!r} was written again"
    return f"{begin}:{end} {change.before!r} became {change.after!r}"
