"""The unmasking head: the blocked implementation against the plain one."""

from typing import Any

import pytest
import torch

from dllm_kernels import onednn
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import explain
from dllm_kernels.dispatch import kernel
from dllm_kernels.head import KERNEL
from dllm_kernels.head import pack_head
from dllm_kernels.head import unmask
from dllm_kernels.head.packed import BLOCK
from tests.kernels.heads import DTYPES
from tests.kernels.heads import TOLERANCE
from tests.kernels.heads import assert_close
from tests.kernels.heads import draw_inputs
from tests.kernels.heads import exact
from tests.kernels.heads import hard_logits
from tests.kernels.heads import packed_or_skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("rows", "vocabulary", "width"),
    [(1, 1, 8), (3, 2, 8), (2, 17, 7), (16, BLOCK, 32), (17, BLOCK + 1, 24), (33, 2 * BLOCK + 1234, 65)],
)
def test_greedy_equals_the_reference(rows: int, vocabulary: int, width: int, dtype: torch.dtype) -> None:
    hidden, weight = draw_inputs(rows, vocabulary, width, dtype)
    bias = torch.randn(vocabulary, generator=torch.Generator().manual_seed(2)).to(dtype)
    for extra in (None, bias):
        expected = unmask(hidden, weight, bias=extra, implementation="reference")
        found = unmask(hidden, weight, bias=extra, implementation="cpu")
        assert_close(found, expected, TOLERANCE[dtype])
        sure = expected.margin > TOLERANCE[dtype]
        assert torch.equal(found.token[sure], expected.token[sure])
        assert bool(sure.any())


@pytest.mark.parametrize("biased", [False, True])
def test_packed_weights_say_the_same(biased: bool) -> None:
    hidden, weight = draw_inputs(33, 2 * BLOCK + 1234, 65, torch.bfloat16)
    bias = torch.randn(len(weight), generator=torch.Generator().manual_seed(2)).bfloat16() if biased else None
    expected = unmask(hidden, weight, bias=bias, implementation="reference")
    found = unmask(hidden, weight, bias=bias, packed=packed_or_skip(weight))
    assert_close(found, expected, TOLERANCE[torch.bfloat16])
    sure = expected.margin > TOLERANCE[torch.bfloat16]
    assert torch.equal(found.token[sure], expected.token[sure])
    assert bool(sure.any())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", list(hard_logits(torch.float32)))
def test_extreme_logits_and_ties(name: str, dtype: torch.dtype) -> None:
    """Where the logits are exact, tokens and the top k equal the reference's at every position; the first tie wins."""
    logits = hard_logits(dtype)[name]
    hidden, weight = exact(logits)
    top_k = min(9, logits.shape[1])
    found = unmask(hidden, weight, top_k=top_k, logits=True, implementation="cpu")
    expected = unmask(hidden, weight, top_k=top_k, logits=True, implementation="reference")
    assert torch.equal(found.token, torch.argmax(logits, dim=-1))
    assert_close(found, expected, 1e-5)
    assert found.top_ids is not None and expected.top_ids is not None
    assert found.top_logits is not None and expected.top_logits is not None
    assert found.logits is not None
    assert torch.equal(found.top_ids, expected.top_ids)
    assert torch.equal(found.top_logits, expected.top_logits)
    assert torch.equal(found.logits, logits)


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_masks(implementation: str) -> None:
    """Banned ids are never drawn; a forced one is certain; where all are banned nothing is known."""
    size = BLOCK + 50
    logits = torch.randn(20, size, generator=torch.Generator().manual_seed(4))
    hidden, weight = exact(logits)
    best = logits.argmax(-1)
    found = unmask(hidden, weight, banned=best.unique(), implementation=implementation)
    left = logits.index_fill(1, best, -torch.inf)
    assert torch.equal(found.token, left.argmax(-1))
    probabilities = left.softmax(-1)
    assert torch.allclose(found.probability, probabilities.amax(-1), atol=1e-6)
    assert torch.allclose(found.entropy, torch.special.entr(probabilities).sum(-1), atol=1e-4)

    pairs = torch.stack([torch.arange(0, 20, 3), best[::3]], dim=1)
    found = unmask(hidden, weight, banned=pairs, implementation=implementation)
    assert torch.equal(found.token[1::3], best[1::3])
    assert torch.equal(found.token[::3], logits[::3].topk(2).indices[:, 1])

    forced = torch.full((20,), -1)
    forced[[2, 17]] = torch.tensor([7, size - 1])
    found = unmask(hidden, weight, forced=forced, implementation=implementation)
    assert found.token[[2, 17]].tolist() == [7, size - 1]
    assert found.probability[[2, 17]].tolist() == found.margin[[2, 17]].tolist() == [1.0, 1.0]
    assert bool((found.entropy[[2, 17]] < 1e-30).all())
    assert torch.equal(found.token[forced < 0], best[forced < 0])

    nothing = unmask(hidden, weight, banned=torch.arange(size), implementation=implementation)
    assert nothing.token.tolist() == [0] * 20
    assert bool(nothing.probability.isnan().all() and nothing.entropy.isnan().all() and nothing.margin.isnan().all())


def test_forced_beside_infinities_of_the_bias() -> None:
    hidden, weight = draw_inputs(5, 100, 8, torch.float32)
    bias = torch.zeros(100).index_fill_(0, torch.arange(0, 100, 2), -torch.inf)
    found, expected = (unmask(hidden, weight, bias=bias, implementation=name) for name in ("cpu", "reference"))
    assert bool((found.token % 2 == 1).all())
    assert torch.equal(found.token, expected.token)
    assert_close(found, expected, 1e-5)


def test_no_position_and_one_id() -> None:
    hidden, weight = draw_inputs(0, 50, 8, torch.float32)
    found = unmask(hidden, weight, top_k=3, logits=True)
    assert found.top_ids is not None and found.logits is not None
    assert (found.token.shape, found.top_ids.shape, found.logits.shape) == ((0,), (0, 3), (0, 50))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 51}, "top_k=51"),
        ({"temperature": -1.0}, "0 or more"),
        ({"temperature": 1.0}, "give both or neither"),
        ({"noise": torch.zeros(4, 50).double()}, "give both or neither"),
        ({"cut": 3}, "cut does nothing"),
        ({"temperature": 1.0, "noise": torch.zeros(4, 50)}, "float64"),
        ({"uniform": torch.full((4,), 0.5)}, "give both or neither"),
        ({"temperature": 1.0, "uniform": torch.full((3,), 0.5)}, r"must be \[4\] numbers"),
        ({"temperature": 1.0, "uniform": torch.ones(4)}, r"numbers in \(0, 1\)"),
        ({"temperature": 1.0, "uniform": torch.full((4,), 0.5), "cut": 3}, "cut goes with noise"),
        ({"banned": torch.tensor([50])}, "below 50"),
        ({"banned": torch.tensor([[4, 0]])}, "outside 0"),
        ({"forced": torch.tensor([1, -2, 0, 0])}, "-1 where free"),
        ({"forced": torch.tensor([1, 2, -1, 3]), "banned": torch.tensor([3])}, "same token"),
        ({"forced": torch.tensor([1, 2, -1, 3]), "banned": torch.tensor([[1, 2]])}, "same token"),
        ({"bias": torch.zeros(49)}, "bias"),
        ({"implementation": "fast"}, "choose one of"),
        ({"implementation": "triton", "top_k": 1}, "triton"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    hidden, weight = draw_inputs(4, 50, 8, torch.float32)
    with pytest.raises(ValueError, match=message):
        unmask(hidden, weight, **options)


def test_a_mismatch_of_shapes_or_dtypes_is_refused() -> None:
    hidden, weight = draw_inputs(4, 50, 8, torch.float32)
    with pytest.raises(ValueError, match="must be"):
        unmask(hidden[:, 1:], weight)
    with pytest.raises(ValueError, match="convert"):
        unmask(hidden.bfloat16(), weight)
    with pytest.raises(KernelError, match="float64"):
        unmask(hidden.double(), weight.double(), implementation="cpu")


def test_packed_weights_are_refused_where_they_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight = draw_inputs(4, 50, 8, torch.bfloat16)
    packed = packed_or_skip(weight)
    with pytest.raises(ValueError, match="pack it anew"):
        unmask(hidden, weight[1:], packed=packed)
    with pytest.raises(KernelError, match="packed"):
        unmask(hidden, weight, packed=packed, implementation="reference")
    with pytest.raises(KernelError, match="float32"):
        pack_head(weight.float())
    monkeypatch.setattr(onednn, "multiply", lambda *_: torch.ops.mkldnn.no_such_product())
    with pytest.raises(KernelError, match="pass it as it is"):
        pack_head(weight)


def test_the_dispatch_knows_the_head() -> None:
    hidden, weight = draw_inputs(4, 50, 8, torch.float32)
    shapes = {"positions": 4, "vocabulary": 50, "width": 8}
    run = kernel(KERNEL, weight.device, weight.dtype, shapes)
    assert torch.equal(run(hidden, weight).token, unmask(hidden, weight, implementation="reference").token)
    text = explain(KERNEL, weight.device, weight.dtype, shapes)
    assert "cpu: chosen" in text and "triton: " in text
    assert "reference: chosen" in explain(KERNEL, weight.device, torch.float64, shapes)
