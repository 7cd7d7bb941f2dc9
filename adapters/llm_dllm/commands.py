"""The commands `llm dllm setup` and `watch`; the others have modules of their own."""

import re
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager

import click
import llm
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dllm_plugins import base_model
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import PluginError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from llm_dllm.loading import DEFAULT
from llm_dllm.loading import Choice
from llm_dllm.model import DLLM
from llm_dllm.model import events
from llm_dllm.options import Options
from llm_dllm.options import to_config
from llm_dllm.progress import shown

#: How errors of the engine call these arguments, and what they are called here.
FLAGS = {"family": "--family ", "preset": "--preset ", "mask_id": "--mask-id "}
STAGES = {"download": "Downloading", "check": "Checking", "convert": "Converting"}


@contextmanager
def clean_errors() -> Iterator[None]:
    """Show our errors as click shows its own: one line, no traceback."""
    try:
        yield
    except DllmError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def named_as_flags() -> Iterator[None]:
    """Show errors with the arguments that they name called as they are here."""
    try:
        yield
    except DllmError as error:
        text = str(error)
        for argument, flag in FLAGS.items():
            text = re.sub(rf"\b{argument}=", flag, text)
        raise click.ClickException(text) from error


@click.group()
def dllm() -> None:
    """Diffusion language models.

    DLLM_BASE (a folder or a hub id), DLLM_DENOISER (a file), DLLM_DTYPE, DLLM_DEVICE,
    DLLM_BACKEND and DLLM_WEIGHTS choose what is loaded; DLLM_CACHE moves the cache.
    """


@dllm.command()
@click.option("--force", is_flag=True, help="Fetch and convert again, for example after a damaged file.")
@click.option("--hub", is_flag=True, help=f"Fetch {base_model.HUB_ID} from the hub instead.")
def setup(force: bool, hub: bool) -> None:
    """Fetch the base weights of the default model once; later runs are offline."""
    with clean_errors():
        if hub:
            from dllm_plugins.families.smollm2 import base_place

            folder = base_place(base_model.HUB_ID)
            click.echo(f"{base_model.HUB_ID} is in {folder}. To use it: export DLLM_BASE={folder}")
            return
        if base_model.is_ready() and not force:
            click.echo(f"The base model is ready in {base_model.base_folder()}.")
            return
        with shown(STAGES) as report:
            base_model.setup(report, force)
    click.echo(f"The base model is ready in {base_model.base_folder()}; from now on no network is needed.")


@dllm.command()
@click.argument("prompt")
@click.option("-o", "--option", "options", type=(str, str), multiple=True, help="Option of the model: NAME VALUE.")
@click.option("-s", "--system", help="System prompt.")
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
def watch(prompt: str, options: tuple[tuple[str, str], ...], system: str | None, model: str) -> None:
    """Show an answer while it is denoised, then one line of statistics; with `-o stats true`, times by part."""
    chat = [{"role": "user", "content": prompt}]
    if system:
        chat.insert(0, {"role": "system", "content": system})
    console = Console(file=sys.stdout)
    with clean_errors():
        choice, config = choice_of(model), config_of(options)
        if console.is_terminal:
            finish = _watch_live(chat, config, console, choice)
        else:
            finish = _watch_plain(chat, config, choice)
    click.echo(finish.usage.summary())
    if finish.usage.parts is not None:
        from dllm_plugins.profile import table

        click.echo("\n".join(table(finish.usage.parts, finish.usage.total_passes)))


def config_of(options: Iterable[tuple[str, str]]) -> SamplingConfig:
    """What `-o NAME VALUE`, given several times, asks for.

    :raises ClickException: for a name that is unknown or a value that cannot be read.
    :raises OptionError: for a value out of range.
    """
    try:
        chosen = Options(**dict(options))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(Options.model_fields))
        raise click.ClickException(f"option {name}={first['input']!r}: {first['msg']}; options: {known}") from error
    return to_config(chosen)


def choice_of(name: str) -> Choice:
    """What a model loads, by its name in llm or an alias.

    :raises PluginError: if it is not one of ours.
    """
    try:
        model = llm.get_model(name)
    except llm.UnknownModelError as error:
        raise PluginError(f"unknown model {name!r}; `llm dllm models` lists what there is") from error
    if not isinstance(model, DLLM):
        raise PluginError(f"{name!r} is not a diffusion model; `llm dllm models` lists those")
    return model.choice


def _watch_plain(chat: list[dict[str, str]], config: SamplingConfig, choice: Choice) -> Finish:
    """A plain stream of final text."""
    for event in events(chat, config, choice):
        if isinstance(event, Commit):
            click.echo(event.text, nl=False)
        elif isinstance(event, Finish):
            click.echo()
            return event
    raise AssertionError("a stream ends with Finish")


def _watch_live(
    chat: list[dict[str, str]], config: SamplingConfig, console: Console, choice: Choice = DEFAULT
) -> Finish:
    """The canvas in place: final text, drafts in colour, open positions as dots."""
    final = ""
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for event in events(chat, config, choice):
            draft = ""
            if isinstance(event, Commit):
                final += event.text
                continue
            if isinstance(event, Draft):
                draft = event.text
            live.update(Text.assemble(final, (draft, "dim cyan")), refresh=True)
            if isinstance(event, Finish):
                return event
    raise AssertionError("a stream ends with Finish")
