"""GGUF files through llama.cpp: our engine beside llama-diffusion-cli, AR decoding in llama.cpp, and torch.

Random files of the Dream, LLaDA and SDAR architectures, tiny and of about 135 million
weights, the same prompt, algorithm and number of passes on both sides, in turns; rows hold
medians. Baselines and row names: `llama_diffusion_cli` (`--diffusion-cli PATH`; both sides
settle greedily, block after block, from left to right), `llama_cpp_ar`, `torch`. With
`--default-model` the shipped model on every backend instead. The work is in `gguf_bench`.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path


def become_package() -> None:
    """Let `import gguf` in a program of this folder mean the package of that name, not this file.

    :raises ModuleNotFoundError: if it is not installed.
    """
    here = Path(__file__).resolve().parent
    found = PathFinder.find_spec(__name__, [place for place in sys.path if Path(place).resolve() != here])
    if found is None or found.loader is None:
        raise ModuleNotFoundError("the package gguf is not installed; pip install gguf", name=__name__)
    package = module_from_spec(found)
    sys.modules[__name__] = package
    found.loader.exec_module(package)


if __name__ == "__main__":
    from gguf_bench.command import main

    main()
else:
    become_package()
