"""Low-rank pairs of the block decoder: they act at noisy rows, and nowhere else."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.compiled import library
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import LowRankPair
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.decoder.gpu import GpuDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.low_rank import LINEARS
from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.low_rank import expected_tensors as low_rank_tensors
from dllm_plugins.denoisers.low_rank import low_rank_from
from dllm_plugins.denoisers.low_rank import with_low_rank
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import expected_tensors as llama_tensors
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk

from .decoders import IMPLEMENTATIONS
from .decoders import SHAPES
from .decoders import drawn
from .decoders import network
from .decoders import row_of
from .decoders import run
from .decoders import skip_unless_run

DTYPES = [torch.float32, torch.bfloat16]
RANK = 8


def with_pairs(weights: DecoderWeights, scale: float = 2.0) -> DecoderWeights:
    """Random pairs, large enough to matter."""
    noise = torch.Generator().manual_seed(3)

    def pair(weight: Tensor) -> LowRankPair:
        down = torch.randn(RANK, weight.shape[1], generator=noise) * weight.shape[1] ** -0.5
        return LowRankPair(down.to(weight), (torch.randn(len(weight), RANK, generator=noise) * 0.2).to(weight))

    pairs = tuple(
        tuple(pair(weight) for weight in (layer.qkv, layer.out, layer.gate_up, layer.down)) for layer in weights.layers
    )
    return replace(weights, low_rank=pairs, low_rank_scale=scale)


def merged(weights: DecoderWeights) -> DecoderWeights:
    """Plain weights that compute for every row what `weights` compute for noisy ones."""
    assert weights.low_rank is not None
    layers = []
    for layer, pairs in zip(weights.layers, weights.low_rank, strict=True):
        qkv, out, gate_up, down = (pair.up @ pair.down * weights.low_rank_scale for pair in pairs)
        layers.append(
            replace(
                layer, qkv=layer.qkv + qkv, out=layer.out + out, gate_up=layer.gate_up + gate_up, down=layer.down + down
            )
        )
    return replace(weights, layers=tuple(layers), low_rank=None)


def one_pass(decoder: Any, tokens: Tensor, seen: Tensor, noisy: Tensor | None) -> Tensor:
    """Logits of one row's tokens."""
    return run(decoder, [(row_of(decoder), tokens, torch.arange(len(tokens)), seen)], noisy)[0]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_noisy_rows_run_the_sum(biased: bool, implementation: Any) -> None:
    """All noisy: the same as weights with the pairs added up, biases and all."""
    weights = with_pairs(take_weights(network("qwen2" if biased else "llama")))
    seen = torch.ones(23, 23).bool()
    expected = one_pass(implementation(merged(weights)), drawn(23), seen, None)
    found = one_pass(implementation(weights), drawn(23), seen, torch.ones(23).bool())
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    clean = one_pass(implementation(weights), drawn(23), seen, torch.zeros(23).bool())
    assert (found - clean).abs().max() > 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_clean_rows_keep_their_bits(dtype: torch.dtype, implementation: Any) -> None:
    """Beside noisy rows that they do not see; those see one another and what is clean before them."""
    skip_unless_run(implementation, dtype)
    weights = take_weights(network("qwen3", dtype, **SHAPES[1]))
    noisy = torch.tensor([False] * 7 + [True] * 5 + [False] * 3 + [True] * 6)
    seen = torch.ones(21, 21).bool().tril() & ~noisy
    seen[7:12, 7:12] = seen[15:, 15:] = True
    expected = one_pass(implementation(weights), drawn(21), seen, None)
    found = one_pass(implementation(with_pairs(weights)), drawn(21), seen, noisy)
    assert torch.equal(found[~noisy], expected[~noisy])
    assert (found[noisy] - expected[noisy]).float().abs().amax(-1).min() > 0.1
    assert torch.equal(one_pass(implementation(with_pairs(weights)), drawn(21), seen, None), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_noisy_rows_do_not_depend_on_their_company(dtype: torch.dtype) -> None:
    """Five noisy rows alone, and between rows of other requests."""
    decoder = PlainDecoder(with_pairs(take_weights(network("llama", dtype, **SHAPES[1]))))
    seen = torch.ones(8, 8).bool().tril()
    seen[3:, 3:] = True
    mine = torch.tensor([False] * 3 + [True] * 5)
    alone = one_pass(decoder, drawn(8), seen, mine)
    for company in (1, 4, 9, 33):
        full = torch.ones(company, company).bool()
        others = [(row_of(decoder), drawn(company, 5), torch.arange(company), full) for _ in (0, 1)]
        row = (row_of(decoder), drawn(8), torch.arange(8), seen)
        noisy = torch.cat([torch.ones(company).bool(), mine, torch.arange(company) % 2 == 0])
        assert torch.equal(run(decoder, [others[0], row, others[1]], noisy)[1], alone), company


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_noisy_without_pairs_is_refused(implementation: Any) -> None:
    """Whoever asks for it would get the base."""
    decoder = implementation(take_weights(network("llama")))
    with pytest.raises(KernelError, match="noisy positions need low-rank pairs"):
        one_pass(decoder, drawn(3), torch.ones(3, 3).bool(), torch.ones(3).bool())


def test_another_decoders_store_is_refused() -> None:
    """With the way to get one's own."""

    class Other:
        kept = 0

        def reserve(self, rows: int) -> None: ...

    for implementation in IMPLEMENTATIONS:
        decoder = implementation(take_weights(network("llama")))
        rows: list[Any] = [(Other(), drawn(3), torch.arange(3), torch.ones(3, 3).bool())]
        with pytest.raises(KernelError, match=r"a store of Other .* new_store\(\)"):
            run(decoder, rows)


def tri_mode() -> tuple[DecoderWeights, LowRankWeights]:
    """A random base and denoiser in the default model's classes."""
    shape = LlamaShape(2, 48, 6, 2, 8, 80, 71, 1e-5, 10_000.0, 512)
    noise = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(size, generator=noise) * 0.2 for name, size in llama_tensors(shape).items()}
    own = {name: torch.randn(size, generator=noise) * 0.2 for name, size in low_rank_tensors(shape, 4, 6).items()}
    for name in (name for name in tensors if "norm" in name):
        tensors[name] += 1
    base = llama_from(tensors, shape, "here")
    return base, low_rank_from(own, {}, shape, torch.float32, "here")


@pytest.mark.parametrize("implementation", [*IMPLEMENTATIONS, CompiledDecoder, GpuDecoder])
def test_the_default_models_weights(implementation: Any) -> None:
    """Clean rows and groups of masks give the hidden states of the forward that the recipe trains with."""
    if implementation is CompiledDecoder and library.why_not():
        pytest.skip(str(library.why_not()))
    base, low_rank = tri_mode()
    weights = with_low_rank(base, low_rank)
    assert weights.layers[1].qkv is base.layers[1].qkv
    assert weights.tied
    segments = [
        Segment(1, drawn(9).tolist(), range(9)),
        Segment(1, [71] * 4, range(8, 12), noisy=True, causal=False, behind=((0, 8),)),
        Segment(1, [71] * 3, range(9, 12), noisy=True, causal=False, behind=((0, 9),)),
    ]
    tokens = torch.tensor([token for segment in segments for token in segment.tokens])
    positions = torch.tensor([place for segment in segments for place in segment.positions])
    noisy = torch.tensor([segment.noisy for segment in segments for _ in segment.tokens])
    seen = visible(segments, 0)
    trained = LowRankDenoiser(base.shape, 4, 6, low_rank.mask_embedding)
    for index, layer in enumerate(low_rank.pairs):
        for name, pair in zip(LINEARS, layer, strict=True):
            trained.weights[f"layers__{index}__{name}__down"] = torch.nn.Parameter(pair.down)
            trained.weights[f"layers__{index}__{name}__up"] = torch.nn.Parameter(pair.up)
    gate = (SCALE * noisy.float())[None, :, None]
    with torch.no_grad():
        hidden, _ = Trunk(base, 32).forward(
            weights.embedding[tokens][None], positions[None], seen[None, None], None, trained, gate
        )
    decoder = implementation(weights)
    (found,) = run(decoder, [(decoder.new_store(), tokens, positions, seen)], noisy)
    torch.testing.assert_close(found, hidden[0] @ base.head.T, atol=1e-4, rtol=1e-4)
