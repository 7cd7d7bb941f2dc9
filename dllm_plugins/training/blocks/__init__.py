"""A small block-diffusion model that solves 4x4 sudoku. `python -m dllm_plugins.training.blocks --help`."""
