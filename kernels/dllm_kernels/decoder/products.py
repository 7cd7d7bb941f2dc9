"""Products of a few rows with large matrices, whose bits do not depend on how many rows there are.

A matrix library chooses its kernel, and with it the order of summation, by the shape. On
many machines all products of 16 to 128 rows agree bit for bit; then one product serves
all rows. Whether they do is not assumed but measured, once per shape of a matrix and
number of threads; where they do not, everything runs on tiles of one size.
"""

import torch
from torch import Tensor

from dllm_kernels.decoder.matrices import Matrix

#: Rows come in multiples of this; a single row is where libraries differ most.
STEP = 16
#: Most rows of one product.
WIDEST = 128


class Products:
    """Multiplies, and remembers which matrices may be multiplied by more than STEP rows at once."""

    def __init__(self) -> None:
        self._agrees: dict[tuple[object, ...], bool] = {}

    def __call__(self, x: Tensor, matrix: Matrix, out: Tensor | None = None) -> Tensor:
        """X [N, in], N a multiple of STEP, times a matrix: [N, out], in `out` or in memory of its own."""
        rows = len(x)
        width = rows if rows == STEP else self.width(matrix, x)
        if rows <= width:
            return matrix(x, out)
        out = x.new_empty(rows, matrix.outs) if out is None else out
        for begin in range(0, rows, width):
            tile = out[begin : begin + width]
            product = matrix(x[begin : begin + width], tile)
            if product is not tile:
                tile.copy_(product)
        return out

    def width(self, matrix: Matrix, like: Tensor) -> int:
        """How many rows may be multiplied at once; rows are as wide as those of `like`, and of its dtype."""
        key = (*matrix.key, torch.get_num_threads())
        if key not in self._agrees:
            self._agrees[key] = agree(matrix, like)
        return WIDEST if self._agrees[key] else STEP


def agree(matrix: Matrix, like: Tensor) -> bool:
    """Whether products of STEP to WIDEST rows give the same bits for the same rows."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(WIDEST, like.shape[1], generator=noise).to(like)
    expected = torch.cat([matrix(tile) for tile in x.split(STEP)])
    return all(
        torch.equal(matrix(x[begin : begin + rows]), expected[begin : begin + rows])
        for rows in range(2 * STEP, WIDEST + 1, STEP)
        for begin in {0, WIDEST - rows}
    )
