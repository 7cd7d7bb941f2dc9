"""`python -m dllm_plugins`: what every installation can do, whichever hosts it has."""

import click

from dllm_plugins.info_command import info
from dllm_plugins.setup_command import setup


@click.group()
@click.version_option(package_name="dllm-plugins")
def main() -> None:
    """Diffusion language models: fetch the default model's base weights, and see what computes."""


main.add_command(setup)
main.add_command(info)

if __name__ == "__main__":
    main(prog_name="python -m dllm_plugins")
