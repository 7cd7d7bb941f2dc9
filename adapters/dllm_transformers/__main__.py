"""`python -m dllm_transformers`: transformers' command line with our classes registered, and `export`.

`serve` and `chat` are transformers' own; `export FOLDER` writes the default model as one
checkpoint that they, `from_pretrained` and `pipeline` load.
"""

import argparse
import sys

from dllm_plugins.errors import DllmError
from dllm_transformers import export


def _export(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m dllm_transformers export", description=export.__doc__)
    parser.add_argument("folder", help="where to; must not exist or be empty")
    parser.add_argument("--base", help="folder or hub id of the base weights")
    parser.add_argument("--denoiser", help="file with the denoiser's weights")
    parser.add_argument("--dtype", default="bfloat16", help="bfloat16 (default), float16 or float32")
    given = parser.parse_args(arguments)
    try:
        folder = export(given.folder, given.base, given.denoiser, given.dtype)
    except DllmError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.write(f"The tri-mode model is in {folder}.\n")


def main() -> None:
    """Run `export`, or hand everything on to transformers."""
    if sys.argv[1:2] == ["export"]:
        _export(sys.argv[2:])
        return
    from transformers.cli.transformers import main as transformers_main

    transformers_main()


if __name__ == "__main__":
    main()
