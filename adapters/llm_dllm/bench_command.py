"""The command `llm dllm bench`."""

import statistics
from collections.abc import Sequence

import click

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.events import Usage
from llm_dllm.commands import choice_of
from llm_dllm.commands import wanted_in
from llm_dllm.loading import DEFAULT
from llm_dllm.loading import loaded_model
from llm_dllm.model import request_of
from llm_dllm.waiting import waiting

QUESTION = "Why is the sky blue?"


@click.command()
@click.argument("prompt", default=QUESTION)
@click.option("-o", "--option", "options", type=(str, str), multiple=True, help="Option of the model: NAME VALUE.")
@click.option("-m", "--model", default=DEFAULT.model_id, show_default=True, help="A model of `llm dllm models`.")
@click.option("-n", "--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Timed answers.")
def bench(prompt: str, options: tuple[tuple[str, str], ...], model: str, repeat: int) -> None:
    """Time answers, and show where the time goes, part by part.

    One answer comes first and is not counted. Every answer is decoded from the beginning: no
    prefix is kept from one to the next.
    """
    with clean_errors():
        choice, (config, extras) = choice_of(model), wanted_in(options)
        with waiting(choice.model_id):
            loaded = loaded_model(choice).model
        chat = [{"role": "user", "content": prompt}]
        request = request_of(loaded, chat, config.with_options(stats=True), choice.model_id, extras)
        engine = loaded.engine()
        engine.generate([request])
        found = [engine.generate([request])[0].usage for _ in range(repeat)]
    click.echo("\n".join(report(found)))


def report(found: Sequence[Usage]) -> list[str]:
    """Lines about some answers: the last one's figures, speeds, and the time of all of them by part."""
    from dllm_plugins.engine.profile import add
    from dllm_plugins.engine.profile import table

    speeds = [usage.useful_tokens / usage.seconds for usage in found]
    total: dict[str, float] = {}
    for usage in found:
        add(total, usage.parts or {})
    return [
        found[-1].summary(),
        f"tokens/s: median {statistics.median(speeds):.1f}, from {min(speeds):.1f} to {max(speeds):.1f} "
        f"in {len(found)} answers",
        "",
        *table(total, sum(usage.total_passes for usage in found)),
    ]
