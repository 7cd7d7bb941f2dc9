"""Blocks times rows in int8: C++ finds what the reference says, and the same bits in any company."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dllm_kernels.blocks import CODED
from dllm_kernels.blocks import IN_BLOCK
from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Kind
from dllm_kernels.coded import coded_product
from dllm_kernels.coded import coded_rows
from dllm_kernels.compiled import library
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import Part
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.decoder.gpu import GpuDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError

from .blocks import SHAPE
from .blocks import random_blocks
from .blocks import weights_in_blocks
from .test_blocks import DTYPES
from .test_blocks import passes

KINDS = list(CODED)
compiled = pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))


def rows(count: int, width: int, dtype: torch.dtype) -> Tensor:
    """Normal ones, with blocks of zeros, a block far larger than the others, and a tiny one."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(count))
    x[0, :IN_BLOCK] = 0
    x[-1, -IN_BLOCK:] *= 1e6
    x[count // 2, IN_BLOCK : 2 * IN_BLOCK] *= 1e-30
    return x.to(dtype)


def test_a_block_keeps_its_own_scale() -> None:
    """Its largest number is level 127, ties go to even numbers, and zeros stay zeros."""
    x = torch.zeros(2, 3 * IN_BLOCK)
    x[0, :3] = torch.tensor([254.0, 1.0, -3.0])
    x[0, IN_BLOCK] = -1e-3
    levels, scale = coded_rows(x)
    assert levels.shape == (2, 3, IN_BLOCK)
    assert levels[0, 0, :3].tolist() == [127, 0, -2]
    assert scale[0, 0] == 2
    assert levels[0, 1, 0] == -127
    assert levels[0, 2].count_nonzero() == levels[1].count_nonzero() == 0


def test_its_error_is_that_of_the_levels() -> None:
    """A product with rows that are levels already is exact, and another one is half a level off at most."""
    weight = random_blocks(Kind.Q4_1, 40, 96, torch.float32)
    exact, x = weight.exact().double(), rows(5, 96, torch.float32)
    found = coded_product(x, weight).double()
    half = coded_rows(x)[1].double() / 2
    bound = half.repeat_interleave(IN_BLOCK, 1) @ exact.abs().T
    expected = x.double() @ exact.T
    assert bool(((found - expected).abs() <= bound * (1 + 1e-6) + 1e-30).all())
    assert bool((found != expected).any())
    levels, scale = coded_rows(x)
    again = (levels.double() * scale.double()[..., None]).flatten(1)
    torch.testing.assert_close(found, again @ exact.T, rtol=1e-6, atol=1e-12)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_products_are_the_references(kind: Kind, dtype: torch.dtype) -> None:
    """Up to the rounding of float32 sums; outputs that fill no panel, numbers of every size, least numbers of int8."""
    decoder = CompiledDecoder(weights_in_blocks(kind, dtype))
    for outs, count in ((1, 1), (7, 3), (37, 2), (64, 17), (2051, 5)):
        weight = replace(random_blocks(kind, outs, 96, dtype, outs), coded=True)
        if kind is Kind.Q8_0:
            weight.data[:, 2:20] = 0x80
        x = rows(count, 64, dtype)
        x = torch.cat([x, x[:, :IN_BLOCK] / 3], dim=1)
        found = decoder.product(weight)(x)
        size = x.double().abs() @ weight.exact().double().abs().T + 1e-30
        assert float(((found.double() - coded_product(x, weight)).abs() / size).max()) < 2e-6


@compiled
@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_result_is_its_own(kind: Kind, threads: int) -> None:
    """Bit for bit, alone and among any number of rows, on any number of threads."""
    decoder = CompiledDecoder(weights_in_blocks(kind, torch.float32))
    product = decoder.product(replace(random_blocks(kind, 200, 96, torch.float32), coded=True))
    x = torch.randn(61, 96, generator=torch.Generator().manual_seed(0))
    cuts = [0, 1, 3, 6, 10, 15, 21, 33, 61]
    parts = torch.cat([product(x[begin:end]) for begin, end in pairwise(cuts)])
    torch.set_num_threads(3)
    assert torch.equal(parts, product(x))


@compiled
@pytest.mark.parametrize("kind", KINDS)
def test_decoders_compute_it(kind: Kind) -> None:
    """The compiled one as the reference, open rows and the head included; and not as without coding.

    In bfloat16 a number rounded the other way becomes another level, and random layers make much of it.
    """
    weights = weights_in_blocks(kind, torch.float32)
    coded = weights.with_coded()
    assert (coded.form, weights.form) == (f"{weights.form}, int8 activations", weights.form)
    reference, compiled, exact = PlainDecoder(coded), CompiledDecoder(coded), CompiledDecoder(weights)
    near = 2e-3
    for mine, other, far in zip(*(passes(each) for each in (compiled, reference, exact)), strict=True):
        assert error(mine, other) < near
        assert 1e-4 < error(mine, far) < 0.2
        torch.testing.assert_close(compiled.logits(mine), reference.logits(mine).float(), rtol=near, atol=near)
    tokens = torch.tensor([[0, SHAPE.vocabulary]])
    assert torch.equal(compiled.embed(tokens), exact.embed(tokens))


@compiled
def test_its_passes_are_row_invariant(threads: int) -> None:
    """A prefix in one pass or row by row, with the head's tokens and probabilities."""
    decoder: Decoder = CompiledDecoder(weights_in_blocks(Kind.Q4_1, torch.float32).with_coded())
    found = [step_by_step(decoder, step) for step in (12, 1, 5)]
    torch.set_num_threads(3)
    found.append(step_by_step(decoder, 3))
    assert all(torch.equal(other, found[0]) for other in found)


def step_by_step(decoder: Decoder, step: int) -> Tensor:
    """What the head says of 12 positions that are forwarded `step` at a time."""
    store, tokens, found = decoder.new_store(), torch.arange(12) * 7, []
    for begin in range(0, 12, step):
        own = tokens[begin : begin + step]
        store.reserve(len(own))
        seen = torch.ones(len(own), len(own)).tril().bool()
        hidden = decoder.forward(own, torch.arange(begin, begin + len(own)), [Part(store, slice(0, len(own)), seen)])
        said = decoder.unmask(hidden, [0.0] * len(own), [None] * len(own))
        assert said is not None
        found.append(torch.stack([said.token.float(), said.probability, said.entropy, said.margin]))
        store.pend(len(own))
        store.freeze(len(own))
    return torch.cat(found, dim=1)


def error(found: Tensor, expected: Tensor) -> float:
    """Relative to the size of what is expected."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def test_elsewhere_it_is_refused() -> None:
    """A GPU would compute another model."""
    weight: Blocks = replace(random_blocks(Kind.Q4_0, 8, 64, torch.float32), coded=True)
    with pytest.raises(KernelError, match="rows are rounded to int8 on the cpu only, not on meta"):
        weight.to(torch.device("meta"))
    with pytest.raises(KernelError, match="int8 activations"):
        GpuDecoder(weights_in_blocks(Kind.Q4_0, torch.float32).with_coded())
