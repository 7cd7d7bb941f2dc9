"""The row-invariant products and attention of :mod:`dllm_kernels.tiles`, under their old names."""

from dllm_kernels.tiles import QUERIES
from dllm_kernels.tiles import ROWS
from dllm_kernels.tiles import TILES
from dllm_kernels.tiles import attend
from dllm_kernels.tiles import linear
from dllm_kernels.tiles import pad_rows

__all__ = ["QUERIES", "ROWS", "TILES", "attend", "linear", "pad_rows"]
