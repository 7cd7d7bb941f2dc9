"""Products of a few rows with large matrices, whose bits do not depend on how many rows there are.

A matrix library chooses its kernel, and with it the order of summation, by the shape. On
many machines all products of 16 to 64 rows agree bit for bit; then one product serves
all rows. Whether they do is not assumed but measured, once per shape of a matrix and
number of threads; where they do not, everything runs on tiles of one size.
"""

import torch
from torch import Tensor

#: Rows come in multiples of this; a single row is where libraries differ most.
STEP = 16
#: Most rows of one product.
WIDEST = 64


class Products:
    """Multiplies, and remembers which matrices may be multiplied by more than STEP rows at once."""

    def __init__(self) -> None:
        self._agrees: dict[tuple[object, ...], bool] = {}

    def into(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """X [N, in] times weight [out, in], plus bias [out], written to `out` [N, out]; N is a multiple of STEP."""
        rows = len(x)
        width = rows if rows == STEP else self.width(weight, bias)
        if rows <= width:
            return _multiply(out, x, weight, bias)
        for begin in range(0, rows, width):
            _multiply(out[begin : begin + width], x[begin : begin + width], weight, bias)
        return out

    def width(self, weight: Tensor, bias: Tensor | None = None) -> int:
        """How many rows may be multiplied at once."""
        key = (weight.shape, weight.dtype, bias is None, torch.get_num_threads())
        if key not in self._agrees:
            self._agrees[key] = agree(weight, bias)
        return WIDEST if self._agrees[key] else STEP


def agree(weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether products of STEP to WIDEST rows give the same bits for the same rows."""
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(WIDEST, weight.shape[1], generator=noise).to(weight)
    expected = torch.cat([_product(tile, weight, bias) for tile in x.split(STEP)])
    return all(
        torch.equal(_product(x[begin : begin + rows], weight, bias), expected[begin : begin + rows])
        for rows in range(2 * STEP, WIDEST + 1, STEP)
        for begin in {0, WIDEST - rows}
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _multiply(x.new_empty(len(x), len(weight)), x, weight, bias)


def _multiply(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return torch.mm(x, weight.t(), out=out)
    return torch.addmm(bias, x, weight.t(), out=out)
