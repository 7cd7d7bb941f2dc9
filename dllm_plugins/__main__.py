"""`python -m dllm_plugins`: what every installation can do, whichever hosts it has."""

import click

from dllm_plugins.commands.batch import batch
from dllm_plugins.commands.costs import costs
from dllm_plugins.commands.info import info
from dllm_plugins.commands.routes import routes
from dllm_plugins.commands.serve import serve
from dllm_plugins.commands.setup import setup

#: Of no use to whoever decodes, so that a checkout has them, and wheels do not.
CHECKOUT = ("training", "conformance")


class _Commands(click.Group):
    """Says where what is left out of wheels is to be had."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first argument."""
        if args[0] in CHECKOUT:
            ctx.fail(
                f"{args[0]} comes with a checkout of the repository, not with the installed package; there it is "
                f"`python -m dllm_plugins.{args[0]}`"
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    epilog="With a checkout of the repository come `python -m dllm_plugins.training` and "
    "`python -m dllm_plugins.conformance`; installed packages do not have them.",
)
@click.version_option(package_name="dllm-plugins")
def main() -> None:
    """Diffusion language models: fetch the default model's base weights, see what computes, serve, run batch jobs."""


main.add_command(setup)
main.add_command(info)
main.add_command(costs)
main.add_command(routes)
main.add_command(serve)
main.add_command(batch)

if __name__ == "__main__":
    main(prog_name="python -m dllm_plugins")
