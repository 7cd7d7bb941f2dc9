"""The fast block decoder does not depend on its company: the same bits alone and batched."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import products
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.cpu import CpuDecoder
from dllm_kernels.tiles import CHUNK

from .decoders import KINDS
from .decoders import SHAPES
from .decoders import drawn
from .decoders import network
from .decoders import row_of
from .decoders import run


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run with one and with two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def walked(decoder: Decoder, tokens: Tensor, at_once: int, company: int = 0) -> Tensor:
    """Causal logits of every token, `at_once` a pass, beside `company` other rows of unequal lengths."""
    store = row_of(decoder)
    others = [row_of(decoder) for _ in range(company)]
    found = []
    for begin in range(0, len(tokens), at_once):
        part = tokens[begin : begin + at_once]
        places = torch.arange(begin, begin + len(part))
        seen = torch.arange(begin + len(part))[None] <= places[:, None]
        rows = [(store, part, places, seen)]
        for index, other in enumerate(others):
            n = 2 + 5 * index
            rows.insert(index % 2, (other, drawn(n, index), torch.arange(n), torch.ones(n, n).bool()))
        mine = next(index for index, row in enumerate(rows) if row[0] is store)
        found.append(run(decoder, rows)[mine])
        store.pend(len(part))
        store.freeze(len(part))
    return torch.cat(found)


def assert_row_invariant(decoder: Decoder, tokens: Tensor) -> None:
    """Bit-equal logits for 1, 2, 9, 16 and 25 rows a pass and all at once, alone and batched."""
    alone = walked(decoder, tokens, 1)
    for at_once, company in [(2, 0), (9, 0), (16, 0), (25, 0), (len(tokens), 0), (1, 3), (9, 4), (16, 1), (25, 2)]:
        assert torch.equal(walked(decoder, tokens, at_once, company), alone), (at_once, company)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_row_invariant(kind: str, dtype: torch.dtype, threads: int) -> None:
    """Over the boundary of a chunk of keys."""
    assert_row_invariant(CpuDecoder(take_weights(network(kind, dtype, **SHAPES[1]))), drawn(CHUNK + 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [SHAPES[0], SHAPES[2]], ids=["36", "40"])
def test_row_invariant_on_odd_shapes(sizes: dict[str, int], dtype: torch.dtype, threads: int) -> None:
    """Widths that no vector of the machine divides."""
    model = network("qwen3", dtype, **{**sizes, "head_dim": 24})
    assert_row_invariant(CpuDecoder(take_weights(model)), drawn(60))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_row_invariant_at_the_default_models_widths(dtype: torch.dtype, threads: int) -> None:
    """Two layers as wide as SmolLM2-135M's, where products are split over threads."""
    sizes: dict[str, Any] = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    model = network("llama", dtype, **sizes, head_dim=64, vocab_size=4096)
    assert_row_invariant(CpuDecoder(take_weights(model)), drawn(40))


def test_threads_do_not_matter() -> None:
    """One thread and two give the same bits."""
    decoder = CpuDecoder(
        take_weights(network("qwen3", torch.bfloat16, hidden_size=256, intermediate_size=768, head_dim=64))
    )
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(walked(decoder, drawn(60), 25))
    torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_of_one_size(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where wider products would differ, every product has the same few rows."""
    monkeypatch.setattr(products, "agree", lambda weight, bias: False)
    seen: list[int] = []
    multiply = products._multiply

    def watched(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(len(x))
        return multiply(out, x, weight, bias)

    monkeypatch.setattr(products, "_multiply", watched)
    assert_row_invariant(CpuDecoder(take_weights(network("qwen2", dtype, **SHAPES[1]))), drawn(50))
    assert set(seen) == {products.STEP}


def test_wider_products_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that rounds otherwise for many rows is found out."""
    weight = torch.randn(20, 24)
    multiply = products._multiply

    def moody(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return multiply(out, x, weight, bias).mul_(1 + 1e-6 * (len(x) == 48))

    monkeypatch.setattr(products, "_multiply", moody)
    assert not products.agree(weight)
    assert products.Products().width(weight) == products.STEP


def test_products_equal_torch() -> None:
    """Any number of whole steps, with and without a bias."""
    made, weight, bias = products.Products(), torch.randn(20, 24), torch.randn(20)
    for rows in (16, 48, 64, 80, 192):
        x = torch.randn(rows, 24)
        for added in (None, bias):
            expected = torch.nn.functional.linear(x, weight, added)
            torch.testing.assert_close(made.into(torch.empty(rows, 20), x, weight, added), expected)
