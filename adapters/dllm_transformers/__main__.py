"""`python -m dllm_transformers`: transformers' command line with our classes registered, and `export`.

`serve` and `chat` are transformers' own; `export FOLDER` writes the default model as one
checkpoint that they, `from_pretrained` and `pipeline` load.
"""

import sys
from contextlib import suppress
from typing import Annotated

import typer
from transformers.cli.transformers import app

import dllm_transformers
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import calling
from dllm_plugins.messages import Dialect

#: What the command calls export's arguments.
_HERE = Dialect({"base": "--base", "denoiser": "--denoiser", "dtype": "--dtype"})


@app.command()
def export(
    folder: Annotated[str, typer.Argument(help="Where to; must not exist or be empty.")],
    base: Annotated[str | None, typer.Option(help="Folder or hub id of the base weights.")] = None,
    denoiser: Annotated[str | None, typer.Option(help="File with the denoiser's weights.")] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
) -> None:
    """Write dllm-plugins' default model, base and denoiser, as one checkpoint."""
    try:
        with calling(_HERE):
            made = dllm_transformers.export(folder, base, denoiser, dtype)
    except DllmError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.write(f"The tri-mode model is in {made}.\n")


if __name__ == "__main__":
    with suppress(ImportError):
        # Without what servers need, transformers' own command says so.
        from dllm_transformers import serving

        serving.prepare()
    app(prog_name="python -m dllm_transformers")
