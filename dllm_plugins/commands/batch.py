"""The command `batch` of `python -m dllm_plugins`, and what `llm dllm batch` does likewise."""

import json
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import click

from dllm_plugins.commands.info import DEFAULT
from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError

if TYPE_CHECKING:
    from dllm_plugins.jobs import Report

HELP = """Answer every row of a file into another, in the same order.

INPUT is in OpenAI's batch format, or holds plain prompts: a JSON string or {"prompt": "..."} on each line; of a .txt
file every line is a prompt. Rows that fail say so in OUTPUT beside the others.

Killed at any point, the same command goes on where it was. The same command in several processes shares the work:
`accelerate launch`, or other machines that see the same folder.
"""
Command = TypeVar("Command", bound=Callable[..., Any])


def arguments(command: Command) -> Command:
    """What both commands take, besides the model."""
    for decorate in reversed(
        (
            click.argument("source", metavar="INPUT", type=click.Path(path_type=Path)),
            click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path)),
            click.option("-s", "--system", help="A system prompt for plain prompts."),
            click.option(
                "-o", "--option", "given", type=(str, str), multiple=True, help="For rows without: NAME VALUE."
            ),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                default=0,
                show_default=True,
                help="Rows that sample without a seed of their own get one made of this and their place.",
            ),
            click.option(
                "--alias", "aliases", multiple=True, help="Another name that rows may call the model by; repeatable."
            ),
            click.option(
                "--together",
                type=click.IntRange(min=1),
                help="Rows decoded together; 16 if not given, 1 where an answer could depend on its company.",
            ),
            click.option("--ray", metavar="ADDRESS", help="Answer on a Ray cluster: its address, auto or local."),
            click.option("--workers", type=click.IntRange(min=1), help="Of Ray; one a device if not given."),
        )
    ):
        command = decorate(command)
    return command


@click.command(help=HELP)
@arguments
@click.option("-m", "--model", default=DEFAULT, show_default=True, help="A name, a folder, a hub id or a GGUF file.")
@click.option("--load", type=(str, str), multiple=True, help="How the model is loaded: NAME VALUE, such as device cpu.")
def batch(model: str, load: tuple[tuple[str, str], ...], given: tuple[tuple[str, str], ...], **others: Any) -> None:
    """See :data:`HELP`."""
    with clean_errors():
        run(model, model, dict(load), config_of(given), **others)


def config_of(given: Iterable[tuple[str, str]]) -> SamplingConfig:
    """Options by the engine's names, lists and mappings in JSON.

    :raises OptionError: for a name that is unknown, and a value that cannot be read or is out of range.
    """
    return SamplingConfig(**{name: _value(name, value) for name, value in given})


def _value(name: str, value: str) -> Any:
    try:
        return json.loads(value) if value.startswith(("[", "{")) else value
    except (ValueError, RecursionError) as error:
        raise OptionError(f"option {name}={value}: it is no JSON ({error})") from error


def run(
    model: str,
    name: str,
    load: Mapping[str, Any],
    config: SamplingConfig,
    *,
    source: Path,
    target: Path,
    system: str | None,
    seed: int,
    aliases: tuple[str, ...],
    together: int | None,
    ray: str | None,
    workers: int | None,
) -> None:
    """What the command does.

    :param name: what rows and output call the model.
    :param load: further arguments of `load_model`.
    :raises DllmError: if the job cannot begin or go on.
    """
    from dllm_plugins.jobs import JobOptions
    from dllm_plugins.jobs import run_job
    from dllm_plugins.jobs.progress import bar
    from dllm_plugins.jobs.progress import silent
    from dllm_plugins.jobs.spread import is_first

    options = JobOptions(model, name, load, config, system, seed, aliases)
    progress = bar if is_first() else silent
    try:
        report = run_job(source, target, options, together=together, ray=ray, workers=workers, progress=progress)
    except KeyboardInterrupt:
        click.echo("Stopped. The same command goes on from here.", err=True)
        raise
    click.echo(_told(report))


def _told(report: "Report") -> str:
    if report.rows is None:
        return f"{report.target} is there."
    failed = f"{report.failed} failed" if report.failed else "none failed"
    return f"{report.target}: {report.rows} rows, {failed}."
