"""The command `llm dllm info`."""

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.commands.terminal import show
from llm_dllm.commands import choice_of
from llm_dllm.dialect import ENVIRONMENT
from llm_dllm.loading import DEFAULT
from llm_dllm.registry import registry_file


@click.command()
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
def info(model: str) -> None:
    """Show what would be loaded, what computes it, and who answers.

    Also what would be faster, and which modes the model has. Weights are not read.
    """
    with clean_errors():
        from dllm_plugins.commands.info import about
        from dllm_plugins.warm.opening import answers

        choice = choice_of(model)
        lines = about(choice.place, choice.load_options())
        if choice.entry is not None:
            # An entry names its sampler, so that only when it was added was there anything to say so.
            lines["sampler"] = choice.entry.facts.why()
        show(lines)
        show({"answers": answers(choice.place, choice.load_options())})
        show({"rules": "llm dllm rules"})
        show({"registry": str(registry_file()), "variables": f"{', '.join(ENVIRONMENT.values())}, DLLM_CACHE"})
