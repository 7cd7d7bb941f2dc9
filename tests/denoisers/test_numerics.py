"""Row-invariance: a position's result does not depend on what else is in the pass."""

from collections.abc import Callable
from collections.abc import Sequence
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from dllm_kernels.tiles import CHUNK
from dllm_kernels.tiles import QUERIES
from dllm_kernels.tiles import ROWS
from dllm_kernels.tiles import attend
from dllm_kernels.tiles import linear
from dllm_kernels.tiles import pad_rows
from dllm_plugins import Model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser

from ..kernels.decoders import parts

#: Passes of one or two tokens.
MOST = 24


def clean_logits(denoiser: TriModeDenoiser, tokens: list[int], sizes: Sequence[int], company: int = 0) -> Tensor:
    """Logits of every token, so many a pass, with `company` other rows in each pass."""
    row = denoiser.open_row()
    others = [denoiser.open_row() for _ in range(company)]
    found = []
    try:
        for start, count in zip(accumulate(sizes, initial=0), sizes, strict=False):
            part, places = tokens[start : start + count], range(start, start + count)
            segments = [Segment(row, part, places, wanted=range(len(part)))]
            for index, other in enumerate(others):
                size = index + 2
                segments.append(Segment(other, [30 + index] * size, range(size), wanted=(0,)))
                segments.append(
                    Segment(other, [denoiser.spec.mask_id] * 3, range(size, size + 3), True, False, ((0, size),))
                )
            hidden = denoiser.forward(segments[1:] + segments[:1] if company % 2 else segments)
            found.append(denoiser.logits(hidden[-1 if company % 2 else 0]))
            denoiser.freeze(row, len(part))
    finally:
        for handle in [row, *others]:
            denoiser.close_row(handle)
    return torch.cat(found)


def assert_row_invariant(denoiser: TriModeDenoiser, tokens: list[int], *cases: tuple[int, int]) -> None:
    """Bit-equal logits for so many tokens a pass beside so many other rows, and for all at once.

    One or two tokens make a pass at either end, where there are few keys and where there are more than a chunk.
    """
    together = clean_logits(denoiser, tokens, [len(tokens)])
    for at_once, company in cases:
        sizes = parts(len(tokens), at_once, MOST if at_once < 9 else None)
        assert torch.equal(clean_logits(denoiser, tokens, sizes, company), together), (at_once, company)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiny_logits_are_bit_equal(load_tiny: Callable[[str], Model], dtype: str, threads: int) -> None:
    """On the tiny model, prompts longer than one chunk of keys included."""
    denoiser = load_tiny(dtype).denoiser
    assert isinstance(denoiser, TriModeDenoiser)
    cases = [(1, 0), (2, 0), (9, 0), (16, 0), (25, 0), (1, 3), (9, 4), (25, 2)]
    assert_row_invariant(denoiser, [3 + (7 * i) % 250 for i in range(CHUNK + 22)], *cases)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_default_model_logits_are_bit_equal(load_default: Callable[[str], Model], dtype: str, threads: int) -> None:
    """On the default model, over the boundary of a chunk of keys."""
    model = load_default(dtype)
    denoiser = model.denoiser
    assert isinstance(denoiser, TriModeDenoiser)
    text = "The quick brown fox jumps over the lazy dog, and then it rests. " * 10
    tokens = model.tokenizer(text)["input_ids"][:60]
    assert_row_invariant(denoiser, tokens, (1, 0), (2, 0), (9, 1), (16, 0), (25, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_equals_the_plain_product(dtype: torch.dtype) -> None:
    """The tiled product is the product."""
    x, weight = torch.randn(3 * ROWS, 48).to(dtype), torch.randn(20, 48).to(dtype)
    torch.testing.assert_close(linear(x, weight), torch.nn.functional.linear(x, weight), atol=1e-5, rtol=2e-2)


@pytest.mark.parametrize("rows", [1, 2, QUERIES, QUERIES + 1, 300])
@pytest.mark.parametrize("chunks", [1, 3])
def test_attend_equals_torch(rows: int, chunks: int) -> None:
    """Attention equals scaled_dot_product_attention under the same mask, on odd row counts and extreme logits."""
    generator = torch.Generator().manual_seed(rows)
    q = torch.randn(rows, 6, 16, generator=generator) * 8
    keys, values = (torch.randn(2, chunks * CHUNK, 16, generator=generator) for _ in range(2))
    mask = torch.rand(rows, chunks * CHUNK, generator=generator) < 0.3
    mask[:, 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask[None, None], enable_gqa=True
    )
    torch.testing.assert_close(
        attend(q, keys, values, mask), expected[0].transpose(0, 1).reshape(rows, -1), atol=1e-4, rtol=1e-4
    )


def test_pad_rows_keeps_what_is_there() -> None:
    """Padding adds zeros behind, on any number of dimensions, and nothing when it fits."""
    x = torch.randn(5, 2, 3)
    padded = pad_rows(x, 4)
    assert padded.shape == (8, 2, 3)
    assert torch.equal(padded[:5], x)
    assert not padded[5:].any()
    assert pad_rows(padded, 4) is padded
