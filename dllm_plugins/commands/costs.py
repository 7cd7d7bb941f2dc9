"""The command `costs` of `python -m dllm_plugins`, and what `llm dllm costs` does likewise."""

from collections.abc import Mapping
from typing import Any

import click

from dllm_plugins.commands.info import DEFAULT
from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.errors import OptionError

HELP = """Show what passes cost on this machine.

Mode speculative chooses its drafts by that; text never depends on it. It is measured when it is needed first, and kept
in the cache folder.
"""
RESET = click.option("--reset", is_flag=True, help="Forget them, so that they are measured again when needed.")
MEASURE = click.option("--measure", is_flag=True, help="Measure now, which loads the model; what was kept is replaced.")


@click.command(help=HELP)
@click.argument("model", default=DEFAULT)
@RESET
@MEASURE
def costs(model: str, reset: bool, measure: bool) -> None:
    """See :data:`HELP`."""
    with clean_errors():
        tell(model, {}, reset=reset, measure=measure)


def tell(model: str, options: Mapping[str, Any], *, reset: bool, measure: bool) -> None:
    """What the command does.

    :param options: of `load_model`.
    :raises DllmError: if the model cannot be loaded, or nobody needs to measure it.
    """
    from dllm_plugins.drafting.kept import costs_file
    from dllm_plugins.drafting.kept import forget
    from dllm_plugins.drafting.kept import kept

    if reset or measure:
        was_there = forget()
        click.echo(f"{costs_file()}: {'forgotten' if was_there else 'nothing was kept'}")
    if measure:
        _measure(model, options)
    for name, found in kept().items():
        click.echo(f"{name}\n  clean rows: {found}\n  a draft: {found.draft:.2f} ms")


def _measure(model: str, options: Mapping[str, Any]) -> None:
    from dllm_plugins.denoisers.base import completed
    from dllm_plugins.drafting.kept import costs_of
    from dllm_plugins.models import load_model

    loaded = load_model(model, **options)
    try:
        if costs_of(completed(loaded.denoiser)) is None:
            raise OptionError(f"{loaded.name} drafts nothing, or always alike: nothing to measure; leave it out")
    finally:
        loaded.close()
