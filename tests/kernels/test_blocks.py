"""Matrices in blocks: they say what GGUF's own library reads, and products have the dequantised matrix's bits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Kind
from dllm_kernels.blocks import below
from dllm_kernels.blocks import plain
from dllm_kernels.blocks import rows_of
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import Part
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.decoder.gpu import GpuDecoder
from dllm_kernels.decoder.plain import PackedDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError

from .blocks import SHAPE
from .blocks import random_blocks
from .blocks import weights_in_blocks
from .decoders import runs

DTYPES = [torch.float32, torch.bfloat16]


def passes(decoder: Decoder, counts: Sequence[int] = (5, 1, 4, 7, 16, 40)) -> list[Tensor]:
    """Hidden states behind a prefix, of passes over so many rows, some of them open."""
    store = decoder.new_store()
    noise = torch.Generator().manual_seed(3)
    found = []
    for rows in counts:
        tokens = torch.randint(0, SHAPE.vocabulary + 1, (rows,), generator=noise)
        store.reserve(rows)
        part = Part(store, slice(0, rows), torch.ones(rows, rows).tril().bool())
        noisy = torch.arange(rows) % 3 == 2
        found.append(decoder.forward(tokens, torch.arange(store.length, store.length + rows), [part], noisy))
        store.pend(rows)
        store.freeze(rows)
    return found


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
@pytest.mark.parametrize("kind", list(Kind))
def test_dequantised_is_what_ggufs_library_reads(kind: Kind, dtype: torch.dtype) -> None:
    """Rounded to bfloat16; rows by number, as embeddings are looked up, are the same."""
    width = 3 * kind.numbers
    found = random_blocks(kind, 37, width, dtype)
    read = torch.from_numpy(gguf.quants.dequantize(found.data.numpy(), GGMLQuantizationType(int(kind))))
    expected = read.to(torch.bfloat16).to(dtype)
    assert found.shape == (37, width)
    assert torch.equal(found.dequantised(), expected)
    rows = torch.tensor([[3, 36], [0, 3]])
    assert torch.equal(found[rows], expected[rows])
    assert torch.equal(plain(rows_of(found, rows[0])), expected[rows[0]])
    further = torch.randn(2, width).to(dtype)
    more = replace(found, plain=further)
    assert torch.equal(more.dequantised(), torch.cat([expected, further]))
    assert torch.equal(more[torch.tensor([38, 0, 37])], torch.stack([further[1], expected[0], further[0]]))


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", list(Kind))
def test_products_have_the_bits_of_the_dequantised_matrix(kind: Kind, dtype: torch.dtype, threads: int) -> None:
    """Rows below, at and above every tile's and panel's, outputs that fill none, widths of 1 to 18 blocks."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    decoder = CompiledDecoder(weights_in_blocks(kind, dtype))
    for outs, many in ((1, 1), (53, 3), (200, 18)):
        ins = many * kind.numbers
        blocks = random_blocks(kind, outs, ins, dtype, outs)
        multiplied, expected = decoder.product(blocks), decoder.product(blocks.dequantised())
        for rows in (1, 2, 3, 4, 5, 6, 7, 16, 41):
            x = torch.randn(rows, ins, generator=torch.Generator().manual_seed(rows)).to(dtype)
            assert torch.equal(multiplied(x), expected(x)), (outs, ins, rows)
    torch.set_num_threads(before)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_decoder_in_blocks_has_the_bits_of_its_dequantised_twin(kind: Kind, dtype: torch.dtype) -> None:
    """Hidden states of clean and open rows, logits, embeddings, and drawn tokens."""
    weights = weights_in_blocks(kind, dtype)
    ours, twin = CompiledDecoder(weights), CompiledDecoder(weights.plain())
    counts = (5, 1, 2, 3, 4, 6, 7, 16, 40)
    for mine, expected in zip(passes(ours, counts), passes(twin, counts), strict=True):
        assert torch.equal(mine, expected)
        assert torch.equal(ours.logits(mine), twin.logits(mine))
        rows = len(mine)
        heats, numbers = [0.0 if row % 2 else 0.8 for row in range(rows)], [(row + 0.5) / rows for row in range(rows)]
        numbers_of = [None if row % 2 else number for row, number in enumerate(numbers)]
        drawn = [each.unmask(mine, heats, [None] * rows, numbers_of) for each in (ours, twin)]
        assert all(torch.equal(getattr(drawn[0], name), getattr(drawn[1], name)) for name in ("token", "probability"))
    tokens = torch.tensor([0, 5, SHAPE.vocabulary])
    assert torch.equal(ours.embed(tokens), twin.embed(tokens))
    assert ours.weights.form == ", ".join(sorted({kind.name, "Q8_0"}))


@pytest.mark.parametrize("implementation", [PlainDecoder, PackedDecoder, GpuDecoder])
def test_other_decoders_dequantise(implementation: Any) -> None:
    """And keep a tied head in the embedding's memory."""
    if not runs(implementation, torch.float32):
        pytest.skip("this machine does not run it")
    weights = weights_in_blocks(Kind.Q4_1, torch.float32)
    ours, twin = implementation(weights), implementation(weights.plain())
    assert ours.weights.tied
    assert ours.weights.form == "float32"
    counts = (5, 1, 2, 3, 4, 6, 7, 16, 40)
    for mine, expected in zip(passes(ours, counts), passes(twin, counts), strict=True):
        assert torch.equal(mine, expected)


def test_matrices_of_one_kind_are_joined() -> None:
    """Others are refused with their kinds."""
    first, second = (random_blocks(Kind.Q4_0, outs, 64, torch.float32) for outs in (3, 5))
    joined = below([first, second])
    assert torch.equal(joined.dequantised(), torch.cat([first.dequantised(), second.dequantised()]))
    assert joined.data.untyped_storage().data_ptr() != first.data.untyped_storage().data_ptr()
    # What lies in one piece already, such as in a mapped file, stays there.
    halves = [replace(joined, data=part) for part in joined.data.split([3, 5])]
    assert below(halves).data.is_set_to(joined.data)
    for apart in (halves[::-1], [halves[0], halves[0]], [replace(joined, data=joined.data[::2]), halves[1]]):
        assert torch.equal(below(apart).dequantised(), torch.cat([part.dequantised() for part in apart]))
    with pytest.raises(KernelError, match="Q4_0, Q8_0 cannot be one"):
        below([first, random_blocks(Kind.Q8_0, 3, 64, torch.float32)])
    mixed: list[Any] = [first, torch.zeros(3, 64)]
    with pytest.raises(KernelError, match="Q4_0, float32 cannot be one"):
        below(mixed)
    longer = replace(second, plain=torch.zeros(1, 64))
    with pytest.raises(KernelError, match="plain rows behind their blocks"):
        below([longer, longer])


def test_neighbours_in_memory_are_joined_without_a_copy() -> None:
    """In order, without a gap, and of one memory; a file's embedding in front of its head does not make them one."""
    file = random_blocks(Kind.Q4_0, 12, 64, torch.float32)
    first, second, third = (replace(file, data=file.data[begin : begin + 4]) for begin in (0, 4, 8))
    assert below([first, second]).data.data_ptr() == file.data.data_ptr()
    assert torch.equal(below([first, second, third]).data, file.data)
    for parts in ([second, first], [first, third], [first, random_blocks(Kind.Q4_0, 4, 64, torch.float32)]):
        joined = below(parts)
        assert joined.data.data_ptr() != file.data.data_ptr()
        assert torch.equal(joined.data, torch.cat([part.data for part in parts]))
    weights = weights_in_blocks(Kind.Q4_0, torch.float32)
    both = random_blocks(Kind.Q8_0, 2 * SHAPE.vocabulary, 64, torch.float32)
    ends = [replace(both, data=both.data[begin : begin + SHAPE.vocabulary]) for begin in (0, SHAPE.vocabulary)]
    assert not replace(weights, embedding=ends[0], head=ends[1]).tied
    assert replace(weights, embedding=both, head=ends[0]).tied


def test_data_of_another_shape_is_refused() -> None:
    """Before memory is read by its address."""
    good = random_blocks(Kind.Q8_0, 4, 64, torch.float32)
    for data in (good.data[:, 1:], good.data.int(), good.data[0]):
        with pytest.raises(KernelError, match=r"blocks of Q8_0 are uint8 \[rows, n \* 34\]"):
            replace(good, data=data)
    with pytest.raises(KernelError, match=r"rows behind blocks are \[n, 64\]"):
        replace(good, plain=torch.zeros(1, 32))
    weights = weights_in_blocks(Kind.Q4_0, torch.float32)
    wrong = replace(weights, head=random_blocks(Kind.Q8_0, SHAPE.vocabulary, 32, torch.float32))
    for implementation in (PlainDecoder, CompiledDecoder):
        with pytest.raises(KernelError, match="head is"):
            implementation(wrong)


def test_rows_with_numbers_that_are_not_finite_are_found() -> None:
    """A scale or a least value of infinity."""
    blocks = random_blocks(Kind.Q4_1, 4, 64, torch.float32)
    blocks.data[2, 22:24] = torch.tensor([torch.inf]).half().view(torch.uint8)
    assert blocks.isfinite().tolist() == [True, True, False, True]
    assert bool(Blocks(Kind.Q8_0, random_blocks(Kind.Q8_0, 4, 64, torch.float32).data, torch.float32).isfinite().all())
