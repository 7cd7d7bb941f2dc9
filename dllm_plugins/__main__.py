"""`python -m dllm_plugins`: what every installation can do, whichever hosts it has."""

import click

from dllm_plugins.commands.info import info
from dllm_plugins.commands.setup import setup


@click.group()
@click.version_option(package_name="dllm-plugins")
def main() -> None:
    """Diffusion language models: fetch the default model's base weights, and see what computes."""


main.add_command(setup)
main.add_command(info)

if __name__ == "__main__":
    main(prog_name="python -m dllm_plugins")
