"""Forms of the weights: packed equals plain, int8 is near it, and nothing is kept twice."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dllm_kernels import onednn
from dllm_kernels.decoder import matrices
from dllm_kernels.decoder import release
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.matrices import PackedMatrix
from dllm_kernels.decoder.plain import Int8Decoder
from dllm_kernels.decoder.plain import PackedDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError
from dllm_kernels.int8 import ReferenceLinear

from .decoders import KINDS
from .decoders import SHAPES
from .decoders import drawn
from .decoders import network
from .decoders import row_of
from .decoders import run
from .decoders import runs
from .decoders import skip_unless_run

DTYPES = [torch.float32, torch.bfloat16]


def told(decoder: Any, length: int = 21) -> torch.Tensor:
    """Logits of a whole canvas."""
    seen = torch.ones(length, length).bool()
    return run(decoder, [(row_of(decoder), drawn(length), torch.arange(length), seen)])[0].float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_plain(kind: str, dtype: torch.dtype) -> None:
    """Internal operators against torch's own product."""
    skip_unless_run(PackedDecoder, dtype)
    weights = take_weights(network(kind, dtype, **SHAPES[1]))
    expected, found = told(PlainDecoder(weights)), told(PackedDecoder(weights))
    bound = 1e-4 if dtype == torch.float32 else 0.15
    torch.testing.assert_close(found, expected, atol=bound, rtol=bound)


@pytest.mark.parametrize("kind", KINDS)
def test_int8_equals_its_reference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit with linear layers that sum in float64; and near the unquantised model."""
    weights = take_weights(network(kind, hidden_size=128, intermediate_size=256, num_attention_heads=4, head_dim=16))
    found, plain = told(Int8Decoder(weights)), told(PlainDecoder(weights))
    assert 0 < (found - plain).abs().mean() < 0.1 * float(plain.std())
    monkeypatch.setattr(matrices, "kernel", lambda *_: ReferenceLinear)
    assert torch.equal(told(Int8Decoder(weights)), found)


def test_int8_refuses_what_it_cannot_hold() -> None:
    """With the weight's size."""
    weights = take_weights(network("llama", **SHAPES[1]))
    weights.layers[1].down[0, 0] = torch.inf
    with pytest.raises(KernelError, match=r"weight \(64, 96\) holds numbers that are not finite.*leave int8 out"):
        Int8Decoder(weights)


def test_operators_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another torch may have none, or others; then nothing is packed, and the reason is told."""

    def missing(*_: Any) -> torch.Tensor:
        raise AttributeError("no such operator")

    packing_fault = onednn.packing_fault.__wrapped__
    assert packing_fault(torch.float32) is None
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert packing_fault(torch.bfloat16) is None
    with monkeypatch.context() as patch:
        patch.setattr(onednn, "ordered_linear", lambda x, packed, bias: x.new_zeros(len(x), 48))
        assert "wrong products" in str(packing_fault(torch.float32))
    monkeypatch.setattr(onednn, "ordered_weight", missing)
    assert "no such operator" in str(packing_fault(torch.float32))
    monkeypatch.setattr(matrices, "packing_fault", packing_fault)
    with pytest.raises(KernelError, match=r"a packed matrix needs oneDNN.*no such operator.*use another form"):
        PackedMatrix(torch.ones(4, 4), None)


@pytest.mark.parametrize("implementation", [PlainDecoder, PackedDecoder, Int8Decoder])
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_given_away(tied: bool, implementation: Any) -> None:
    """What is packed is emptied; the model says so when it is called, and keeps its shapes."""
    expected = told(implementation(take_weights(network("qwen2", tie_word_embeddings=tied, **SHAPES[1]))))
    model = network("qwen2", tie_word_embeddings=tied, **SHAPES[1])
    count = sum(parameter.numel() for parameter in model.parameters())
    weights = replace(take_weights(model), given=True)
    release(model)
    decoder = implementation(weights)
    assert torch.equal(told(decoder), expected)
    emptied = implementation is not PlainDecoder
    assert all((layer.qkv.numel() == 0) == emptied for layer in weights.layers)
    assert (weights.head.numel() == 0) == (emptied and not tied)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    for called in (model, model.model):
        with pytest.raises(KernelError, match=r"given to the block decoder; pass keep_model=True"):
            called(drawn(3)[None])


def test_stores_are_as_narrow_as_the_weights() -> None:
    """bfloat16 keys and values for bfloat16 weights."""
    for dtype in (item for item in DTYPES if runs(PackedDecoder, item)):
        store = row_of(PackedDecoder(take_weights(network("llama", dtype, **SHAPES[1]))))
        store.reserve(1)
        assert {tensor.dtype for tensor in [*store.keys, *store.values]} == {dtype}
        assert store.copy(0).dtype == dtype
