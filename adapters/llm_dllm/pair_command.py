"""The command `llm dllm pair`."""

from pathlib import Path
from typing import Any

import click
import llm

from dllm_plugins.commands.terminal import clean_errors
from dllm_plugins.errors import PluginError
from dllm_plugins.pairs import named
from llm_dllm.loading import EVERYWHERE
from llm_dllm.model import DLLM
from llm_dllm.registry_commands import check_free


@click.command()
@click.argument("name")
@click.option("--ar", required=True, metavar="MODEL", help="The model that verifies, and whose text it is.")
@click.option("--diffusion", required=True, metavar="MODEL", help="The diffusion model that drafts.")
@click.option("--draft-length", type=click.IntRange(1, 16), help="Drafts of a pass, unless a prompt says otherwise.")
def pair(name: str, ar: str, diffusion: str, draft_length: int | None) -> None:
    """Register two models under one name: one drafts, one verifies.

    The text is that of the model --ar in its mode `ar`; the model --diffusion drafts it, so that it takes fewer
    passes. Each is a name of `llm dllm models`, a folder, a hub id or a GGUF file; --ar also an ordinary Llama, Qwen2
    or Qwen3.
    """
    with clean_errors():
        check_free(name)
        from dllm_plugins.load_options import LoadOptions
        from dllm_plugins.pairs.load import auto

        (target, given), (drafter, more) = _side(ar), _side(diffusion)
        made = named.Pair(target, drafter, given, more, draft_length)
        auto(made, LoadOptions())
        named.add(name, made)
    click.echo(f"Registered {name}: {target} verifies, {drafter} drafts")
    click.echo(f"Try: llm -m {name} 'Why is the sky blue?' -o max_tokens 64")


def _side(name: str) -> tuple[str, dict[str, Any]]:
    """One of the two as `load_model` takes it: what has a name in llm, or a place.

    :raises PluginError: for a model that is not one of ours.
    """
    try:
        model = llm.get_model(name)
    except llm.UnknownModelError:
        place = Path(name).expanduser()
        return (str(place.resolve()) if place.exists() else name), {}
    if not isinstance(model, DLLM):
        raise PluginError(f"{name!r} is a model of another plug-in; `llm dllm models` lists those that can be paired")
    options = model.choice.load_options()
    return model.choice.place, {
        option: value for option, value in options.items() if option not in EVERYWHERE and value is not None
    }
