"""The command `llm dllm info`."""

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.commands.terminal import show
from dllm_plugins.errors import OptionError
from llm_dllm.commands import choice_of
from llm_dllm.dialect import ENVIRONMENT
from llm_dllm.loading import DEFAULT
from llm_dllm.registry import registry_file


@click.command()
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
@click.option("--route", "prompt", help="Say which mode `auto` would choose for this prompt, and why; loads the model.")
@click.option("-o", "--option", "options", type=(str, str), multiple=True, help="With --route: NAME VALUE, as for llm.")
@click.option("--schema", help="With --route: what the answer must be.")
@click.option("--suffix", help="With --route: text behind a gap, before which the prompt stands.")
@click.option("--rows", type=click.IntRange(1), default=1, help="With --route: requests that share the passes.")
def info(
    model: str,
    prompt: str | None,
    options: tuple[tuple[str, str], ...],
    schema: str | None,
    suffix: str | None,
    rows: int,
) -> None:
    """Show what would be loaded, what computes it, and who answers.

    Also what would be faster, and which modes the model has. Weights are not read, but with --route.
    """
    with clean_errors():
        if prompt is not None:
            from llm_dllm.route_told import route_told

            click.echo(route_told(prompt, options, schema, suffix, rows, choice_of(model)))
            return
        if options or schema is not None or suffix is not None or rows != 1:
            raise OptionError("--option, --schema, --suffix and --rows are about a prompt; give it with --route")
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
