"""The command `llm dllm batch`."""

from typing import Any

import click

from dllm_plugins.commands.batch import HELP
from dllm_plugins.commands.batch import arguments
from dllm_plugins.commands.batch import run
from dllm_plugins.commands.terminal import clean_errors
from llm_dllm.commands import choice_of
from llm_dllm.commands import config_of
from llm_dllm.loading import DEFAULT


@click.command(help=HELP)
@arguments
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
def batch(model: str, given: tuple[tuple[str, str], ...], **others: Any) -> None:
    """See :data:`~dllm_plugins.commands.batch.HELP`."""
    with clean_errors():
        choice = choice_of(model)
        run(choice.place, choice.model_id, choice.load_options(), config_of(given), **others)
