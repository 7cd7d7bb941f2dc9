"""The command `llm dllm costs`."""

import click

from dllm_plugins.commands.costs import HELP
from dllm_plugins.commands.costs import MEASURE
from dllm_plugins.commands.costs import RESET
from dllm_plugins.commands.costs import tell
from dllm_plugins.commands.terminal import clean_errors
from llm_dllm.commands import choice_of
from llm_dllm.loading import DEFAULT


@click.command(help=HELP)
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
@RESET
@MEASURE
def costs(model: str, reset: bool, measure: bool) -> None:
    """See :data:`~dllm_plugins.commands.costs.HELP`."""
    with clean_errors():
        choice = choice_of(model)
        tell(choice.place, choice.load_options(), reset=reset, measure=measure)
