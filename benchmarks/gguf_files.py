"""GGUF files through llama.cpp: our engine beside llama-diffusion-cli, AR decoding in llama.cpp, and torch.

Random files of the Dream, LLaDA and SDAR architectures, tiny and of about 135 million
weights, the same prompt, algorithm and number of passes on both sides, in turns; rows hold
medians. Baselines and row names: `llama_diffusion_cli` (`--diffusion-cli PATH`; both sides
commit greedily, block after block, from left to right), `llama_cpp_ar`, `torch`. With
`--default-model` the shipped model on every backend instead. The work is in `gguf_bench`. The
file is called neither `gguf` nor `llama_cpp`, which would hide the packages of those names.
"""

from gguf_bench.command import main

if __name__ == "__main__":
    main()
