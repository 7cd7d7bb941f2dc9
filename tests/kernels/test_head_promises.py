"""What the blocked head promises: equal bits in any company, and no [N, V]."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dllm_kernels.head import unmask
from dllm_kernels.head.packed import BLOCK
from dllm_kernels.head.packed import ROWS
from tests.kernels.heads import draw_gumbel
from tests.kernels.heads import draw_inputs
from tests.kernels.heads import packed_or_skip


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "packed"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("width", [576, 2048])
def test_a_row_has_the_same_bits_in_any_company(
    dtype: torch.dtype, packed: bool, width: int, threads: Callable[[int], None]
) -> None:
    hidden, weight = draw_inputs(40, BLOCK + 1003, width, dtype)
    faster = packed_or_skip(weight) if packed else None
    gumbel = draw_gumbel(40, len(weight))
    warm = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(20)
    numbers = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    numbers[torch.arange(40) % 4 != 3] = torch.nan

    def ask(rows: slice) -> list[Tensor]:
        # Noise only where a position of the slice is sampled: row 0 alone is greedy.
        hot = bool(((warm[rows] > 0) & numbers[rows].isnan()).any())
        found = unmask(
            hidden[rows],
            weight,
            temperature=warm[rows],
            noise=gumbel[rows] if hot else None,
            uniform=numbers[rows],
            top_k=4,
            logits=True,
            packed=faster,
            implementation="cpu",
        )
        parts = [found.token, found.probability, found.entropy, found.margin]
        assert found.top_ids is not None and found.top_logits is not None and found.logits is not None
        return [*parts, found.top_ids, found.top_logits, found.logits]

    threads(1)
    whole = ask(slice(None))
    for count in (1, 2):
        threads(count)
        for rows in (1, 2, 9, 16, 25):
            for start in (0, 7, 13):
                part = slice(start, start + rows)
                assert all(torch.equal(one, all_[part]) for one, all_ in zip(ask(part), whole, strict=True))


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that did not exist before."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            if isinstance(item, Tensor) and item.untyped_storage().data_ptr() not in self._known:
                self.elements = max(self.elements, item.untyped_storage().nbytes() // item.element_size())
        return out


def test_the_logits_never_exist_at_once() -> None:
    rows, size = 48, 6 * BLOCK
    hidden, weight = draw_inputs(rows, size, 8, torch.bfloat16)
    gumbel = draw_gumbel(rows, size)
    options: dict[str, Any] = {"temperature": 1.0, "noise": gumbel, "cut": 5, "top_k": 10}
    by_numbers: dict[str, Any] = {"temperature": 1.0, "uniform": torch.linspace(0.1, 0.9, rows, dtype=torch.float64)}

    def largest(options: dict[str, Any] = options, **more: Any) -> int:
        with LargestTensor(hidden, weight, gumbel) as counter:
            unmask(hidden, weight, **options, **more)
        found: int = counter.elements
        return found

    assert largest(implementation="cpu") <= ROWS * BLOCK
    assert largest(by_numbers, implementation="cpu") <= ROWS * BLOCK
    assert largest(implementation="cpu", logits=True) == rows * size
    assert largest(implementation="reference") >= rows * size
