"""The command `llm dllm serve`."""

from typing import TYPE_CHECKING
from typing import Any

import click

from dllm_plugins.commands.serve import HELP
from dllm_plugins.commands.serve import run
from dllm_plugins.commands.serve import with_options
from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.libraries.extras import need
from llm_dllm.commands import choice_of

if TYPE_CHECKING:
    from dllm_plugins.serving.settings import Loading


@click.command(help=HELP)
@with_options
def serve(**given: Any) -> None:
    """Models are those of `llm dllm models`, files and folders."""
    with clean_errors():
        need("fastapi", "`llm dllm serve`")
        run(given, _loading)


def _loading(name: str) -> "Loading":
    from dllm_plugins.serving.settings import Loading

    choice = choice_of(name)
    return Loading(choice.place, choice.load_options())
