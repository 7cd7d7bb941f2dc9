"""The group `llm dllm`; its commands are imported when one of them is called.

llm imports this on every call.
"""

from importlib import import_module

import click

from dllm_plugins.libraries.extras import has
from dllm_plugins.libraries.extras import need
from llm_dllm.dialect import LLM

#: Where each command is, by its name; it has that name there, too.
COMMANDS = {
    "add": "llm_dllm.registry_commands",
    "batch": "llm_dllm.batch_command",
    "bench": "llm_dllm.bench_command",
    "costs": "llm_dllm.costs_command",
    "edit": "llm_dllm.edit_command",
    "fill": "llm_dllm.fill_command",
    "gguf": "llm_dllm.gguf_command",
    "info": "llm_dllm.info_command",
    "models": "llm_dllm.registry_commands",
    "pair": "llm_dllm.pair_command",
    "remove": "llm_dllm.registry_commands",
    "routes": "dllm_plugins.commands.routes",
    "rules": "llm_dllm.rules_command",
    "serve": "llm_dllm.serve_command",
    "setup": "dllm_plugins.commands.setup",
    "watch": "llm_dllm.watch_command",
}
#: Those that draw on the terminal, with rich.
DRAWN = ("watch",)


class _OnCall(click.Group):
    """A group that knows its commands by their names only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in DRAWN and not has("rich"):
            return _missing(cmd_name)
        found: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return found


def _missing(name: str) -> click.Command:
    """In place of a command that lacks a library: it says what to install, whatever it is given."""

    def refuse() -> None:
        from dllm_plugins.commands.terminal import clean_errors

        with clean_errors():
            need("rich", f"`llm dllm {name}`")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=refuse, context_settings=anything, short_help="Needs rich, not installed.")


@click.group(cls=_OnCall)
@click.pass_context
def dllm(context: click.Context) -> None:
    """Diffusion language models.

    DLLM_BASE (a folder or a hub id), DLLM_DENOISER (a file), DLLM_DTYPE, DLLM_DEVICE,
    DLLM_BACKEND and DLLM_WEIGHTS choose what is loaded; DLLM_CACHE moves the cache.
    With DLLM_SERVER=auto a running `llm dllm serve` answers, and nothing is loaded.
    """
    context.obj = LLM
