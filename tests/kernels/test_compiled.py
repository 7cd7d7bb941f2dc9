"""The compiled block decoder: equal to transformers, row-invariant, and only used where it fits."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_kernels import build
from dllm_kernels.compiled import library
from dllm_kernels.compiled.targets import TARGETS
from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder import LowRankPair
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.decoder.plain import PlainDecoder
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import choose
from dllm_kernels.dispatch import explain
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict

from .decoders import BIASED
from .decoders import KINDS
from .decoders import SHAPES
from .decoders import blocks
from .decoders import drawn
from .decoders import logits_of
from .decoders import network
from .decoders import row_of
from .decoders import run
from .test_decoder_numerics import assert_row_invariant

pytestmark = pytest.mark.usefixtures("built")


@pytest.mark.parametrize("sizes", SHAPES, ids=lambda sizes: str(sizes["hidden_size"]))
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(kind: str, biased: bool, sizes: dict[str, Any], threads: int) -> None:
    """Odd widths and heads, any mask, positions out of order, tied and untied heads."""
    extra: dict[str, Any] = BIASED[kind] if biased else {}
    model = network(kind, tie_word_embeddings=biased, **sizes, **extra)
    tokens, positions = drawn(23), torch.randperm(700, generator=torch.Generator().manual_seed(1))[:23]
    seen = (torch.rand(23, 23, generator=torch.Generator().manual_seed(2)) < 0.5) | torch.eye(23).bool()
    decoder = CompiledDecoder(take_weights(model))
    (found,) = run(decoder, [(row_of(decoder), tokens, positions, seen)])
    torch.testing.assert_close(found, logits_of(model, tokens, positions, seen), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_as_close_to_float32_as_the_reference(kind: str) -> None:
    """Its residuals and norms are float32, so it must not be further away."""
    wide = network(kind, **SHAPES[1])
    narrow = network(kind, torch.bfloat16, **SHAPES[1])
    with torch.no_grad():
        for own, other in zip(wide.parameters(), narrow.parameters(), strict=True):
            own.copy_(other.float())
    errors = []
    for implementation in (CompiledDecoder, PlainDecoder):
        found = []
        for model in (wide, narrow):
            decoder = implementation(take_weights(model))
            rows = [(row_of(decoder), drawn(n, n), torch.arange(n), torch.ones(n, n).bool()) for n in (1, 17, 6)]
            found.append(torch.cat(run(decoder, rows)).float())
        errors.append(float((found[0] - found[1]).norm()))
    assert 0 < errors[0] <= errors[1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [SHAPES[0], SHAPES[1]], ids=["36", "64"])
@pytest.mark.parametrize("kind", KINDS)
def test_row_invariant(kind: str, sizes: dict[str, int], dtype: torch.dtype, threads: int) -> None:
    """Bit-equal alone and batched, over the boundary of a block of keys."""
    assert_row_invariant(CompiledDecoder(take_weights(network(kind, dtype, **sizes))), drawn(270), most=40)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    decoder = CompiledDecoder(take_weights(network("qwen3", torch.bfloat16, **SHAPES[1])))
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            found += run(decoder, [(row_of(decoder), drawn(21), torch.arange(21), torch.ones(21, 21).bool())])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found[1:])


def test_int8_is_row_invariant(threads: int) -> None:
    if not library.load().dllm_has_int8():
        pytest.skip("this processor has no AVX-512 VNNI")
    model = network("qwen3", torch.bfloat16, **SHAPES[1])
    assert_row_invariant(CompiledDecoder(take_weights(model), int8=True), drawn(60))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cached_equals_recomputed(dtype: torch.dtype) -> None:
    """Ragged rows behind their own prefixes; a pass overwrites what the one before left."""
    model = network("qwen3", dtype, **SHAPES[1])
    decoder = CompiledDecoder(take_weights(model))
    tokens = [drawn(290, seed) for seed in (1, 2)]
    whole = [run(decoder, [(row_of(decoder), row, torch.arange(290), blocks(0, 290))])[0] for row in tokens]
    stores, ends = [row_of(decoder), row_of(decoder)], [0, 0]
    for steps in ((250, 5), (5, 10), (5, 255), (10, 5), (5, 5)):
        before = list(ends)
        ends = [begin + step for begin, step in zip(before, steps, strict=True)]
        spans = [torch.arange(begin, end) for begin, end in zip(before, ends, strict=True)]
        rows = [(stores[i], tokens[i][spans[i]], spans[i], blocks(before[i], ends[i])) for i in (0, 1)]
        noise = [(stores[i], drawn(7, 9), spans[i][0] + torch.arange(7), torch.ones(7, 7).bool()) for i in (0, 1)]
        run(decoder, noise)
        for row, found in enumerate(run(decoder, rows)):
            assert torch.equal(found, whole[row][spans[row]])
        for row, step in enumerate(steps):
            stores[row].pend(step)
            stores[row].freeze(step)
    copied = stores[0].copy(13)
    (again,) = run(decoder, [(copied, tokens[0][10:15][3:], torch.arange(13, 15), blocks(13, 15))])
    assert torch.isfinite(again).all() and copied.length == 13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_held_keys_stand_where_they_are_put(dtype: torch.dtype) -> None:
    """What is held equals a store that was filled with those positions in the first place."""
    decoder = CompiledDecoder(take_weights(network("llama", dtype, **SHAPES[1])))
    store, tokens = row_of(decoder), drawn(40)
    run(decoder, [(store, tokens[:9], torch.arange(9), blocks(0, 9))])
    store.pend(9)
    store.freeze(9)
    run(decoder, [(store, tokens[9:30], torch.arange(9, 30), blocks(9, 30))])
    store.pend(21)
    chosen = [1, 2, 5, 18, 20]
    expected = [tensor.clone() for tensor in (*store.keys, *store.values)]
    store.hold(chosen)
    assert (store.length, store.held) == (9, 5)
    for before, after, width in zip(
        expected, (*store.keys, *store.values), [16] * 2 + [1 if dtype == torch.float32 else 2] * 2, strict=True
    ):
        old, new = before.movedim(3, 2), after.movedim(3, 2)
        for place, index in enumerate(chosen):
            was, now = 9 + index, 9 + place
            assert torch.equal(new[:, now // width, now % width], old[:, was // width, was % width])
    run(decoder, [(store, tokens[30:34], torch.arange(30, 34), blocks(30, 34))])
    store.pend(4)
    store.freeze(4)
    assert (store.length, store.held) == (13, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_rank_pairs_act_at_noisy_rows_only(dtype: torch.dtype) -> None:
    """Noisy rows equal the reference, clean ones keep the bits of the bare base."""
    weights = take_weights(network("llama", dtype, **SHAPES[1]))
    noise = torch.Generator().manual_seed(3)
    pairs = tuple(
        tuple(
            LowRankPair(
                (torch.randn(4, matrix.shape[1], generator=noise) / 8).to(dtype),
                (torch.randn(matrix.shape[0], 4, generator=noise) / 8).to(dtype),
            )
            for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )
        for layer in weights.layers
    )
    gated = replace(weights, low_rank=pairs, low_rank_scale=2.0)
    noisy = torch.arange(12) >= 5
    seen = torch.ones(12, 12).bool()
    seen[:5, 5:] = False
    found = {}
    decoders: dict[str, Decoder] = {
        "bare": CompiledDecoder(weights),
        "gated": CompiledDecoder(gated),
        "reference": PlainDecoder(gated),
    }
    for name, decoder in decoders.items():
        row = (row_of(decoder), drawn(12), torch.arange(12), seen)
        (found[name],) = run(decoder, [row], None if name == "bare" else noisy)
    assert torch.equal(found["gated"][:5], found["bare"][:5])
    assert not torch.allclose(found["gated"][5:], found["bare"][5:], atol=0.1)
    atol, rtol = (2e-4, 1e-4) if dtype == torch.float32 else (0.3, 0.1)
    torch.testing.assert_close(found["gated"], found["reference"].float(), atol=atol, rtol=rtol)


def test_parts_of_a_row_do_not_see_one_another() -> None:
    """Each equals the pass that holds it alone, and the first one's keys stay."""
    decoder = CompiledDecoder(take_weights(network("qwen3", **SHAPES[1])))
    store, alone = row_of(decoder), []
    parts = [(store, drawn(n, n), torch.arange(n), torch.ones(n, n).bool()) for n in (6, 11, 3)]
    for part in parts:
        alone += run(decoder, [part])
    for found, expected in zip(run(decoder, parts), alone, strict=True):
        assert torch.equal(found, expected)
    kept = [tensor.clone() for tensor in store.keys]
    run(decoder, parts[:1])
    for before, after in zip(kept, store.keys, strict=True):
        assert torch.equal(before[:, 0, :, :6], after[:, 0, :, :6])


def test_empty_pass() -> None:
    decoder = CompiledDecoder(take_weights(network("llama", **SHAPES[1])))
    none = torch.empty(0, dtype=torch.int64)
    assert decoder.forward(none, none, []).shape == (0, 64)
    assert decoder.logits(torch.empty(0, 64)).shape == (0, 71)


def test_chosen_where_it_fits_and_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    sizes = take_weights(network("llama", **SHAPES[1])).shape.sizes()
    assert choose(KERNEL, cpu, torch.bfloat16, sizes).name == "compiled"
    assert choose(KERNEL, cpu, torch.bfloat16, {**sizes, "intermediate": 33}).name != "compiled"
    assert "must be even" in explain(KERNEL, cpu, torch.bfloat16, {**sizes, "intermediate": 33})
    for setting, reason in ((str(tmp_path), "dllm_plugins setup"), ("", "switched off")):
        library.load.cache_clear()
        monkeypatch.setenv("DLLM_KERNELS", setting)
        assert choose(KERNEL, cpu, torch.bfloat16, sizes).name != "compiled"
        assert reason in explain(KERNEL, cpu, torch.bfloat16, sizes)
    library.load.cache_clear()


def test_another_decoders_store_is_refused() -> None:
    weights = take_weights(network("llama", **SHAPES[1]))
    other = PlainDecoder(weights).new_store()
    with pytest.raises(KernelError, match="new_store"):
        run(CompiledDecoder(weights), [(other, drawn(3), torch.arange(3), torch.ones(3, 3).bool())])


def other_targets() -> Iterator[Any]:
    """The plain-vector forms; skipped where one cannot run here, or is what every other test of this file runs."""
    for target in ("avx512", "avx2"):
        missing = sorted(TARGETS[target].features - library._features())
        # Where one is missing there may be no best one: another processor.
        alone = not missing and target == library.best_target()
        reason = f"all tests run {target}, this processor's best" if alone else f"this processor has no {missing}"
        yield pytest.param(target, marks=pytest.mark.skipif(alone or bool(missing), reason=reason))


@pytest.mark.slow
@pytest.mark.parametrize("target", list(other_targets()))
def test_other_instruction_sets_compute_the_same(target: str, tmp_path: Path) -> None:
    """The plain-vector forms of the same sources, where this machine can run them and has a better one."""
    program = """
import sys
from dllm_kernels import build
from dllm_kernels.compiled import library
library.best_target = lambda: sys.argv[1]
build.build(sys.argv[1])
import pytest
names = "recomputed or low_rank or parts or as_close or held or empty or the_bits"
raise SystemExit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", names, *sys.argv[2:]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, target, __file__, str(Path(__file__).with_name("test_blocks.py"))],
        env={**os.environ, "DLLM_KERNELS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_build_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("DLLM_KERNELS", str(tmp_path))
    with pytest.raises(KernelError, match="CXX='no-such-compiler'"):
        build.build(library.best_target())
    assert not list(tmp_path.glob("*dllm_kernels*"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [71, 2051])
def test_the_head_without_logits_says_what_logits_say(dtype: torch.dtype, vocabulary: int, threads: int) -> None:
    """Greedy and sampled tokens exactly, the numbers to 1e-6, in any company."""
    model = network("llama", dtype, vocab_size=vocabulary, tie_word_embeddings=False, **SHAPES[1])
    decoder = CompiledDecoder(take_weights(model))
    hidden = torch.randn(17, 64, generator=torch.Generator().manual_seed(4)).to(dtype)
    logits = decoder.logits(hidden)
    gumbel = (
        -torch.empty(17, vocabulary, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(5)).log()
    )
    temperatures = [0.0 if row % 2 else 0.1 + row / 4 for row in range(17)]
    noises = [gumbel[row] if heat else None for row, heat in enumerate(temperatures)]
    found = decoder.unmask(hidden, temperatures, noises)
    expected = torch.stack(
        [
            (logits[row].double() / heat + gumbel[row]).argmax() if heat else logits[row].argmax()
            for row, heat in enumerate(temperatures)
        ]
    )
    assert torch.equal(found.token, expected)
    exact = logits.double().softmax(-1)
    best = exact.topk(2).values
    for own, other in (
        (found.probability, exact.gather(1, expected[:, None])[:, 0]),
        (found.entropy, torch.special.entr(exact).sum(-1)),
        (found.margin, best[:, 0] - best[:, 1]),
    ):
        torch.testing.assert_close(own.double(), other, atol=2e-6, rtol=2e-6)
    for row in (0, 3, 16):
        alone = decoder.unmask(hidden[row : row + 1], temperatures[row : row + 1], noises[row : row + 1])
        for name in ("token", "probability", "entropy", "margin"):
            assert torch.equal(getattr(alone, name), getattr(found, name)[row : row + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [71, 1024, 2051])
def test_one_number_draws_from_the_head_what_logits_say(dtype: torch.dtype, vocabulary: int, threads: int) -> None:
    """At several temperatures, on the very border between two ids, too, where sums in parts err, in any company."""
    model = network("llama", dtype, vocab_size=vocabulary, tie_word_embeddings=False, **SHAPES[1])
    decoder = CompiledDecoder(take_weights(model))
    generator = torch.Generator().manual_seed(4)
    hidden = (torch.randn(19, 64, generator=generator) * 3).to(dtype)
    logits = decoder.logits(hidden)
    warmth = [0.1 + row / 4 for row in range(19)]
    reached = torch.softmax(logits.double() / torch.tensor(warmth)[:, None], -1).cumsum(-1)
    anywhere = torch.rand(19, dtype=torch.float64, generator=generator)
    on = reached.gather(1, torch.randint(0, vocabulary, (19, 2), generator=generator))
    for numbers in (anywhere, *on.unbind(1), on[:, 0] + 1e-15, on[:, 1] - 1e-15, anywhere * 1e-12):
        uniform = numbers.clamp(1e-300, 1 - 2**-53).tolist()
        found = decoder.unmask(hidden, warmth, [None] * 19, uniform)
        expected = predict(logits, [Draw(heat, uniform=own) for heat, own in zip(warmth, uniform, strict=True)])
        assert torch.equal(found.token, expected.token)
        torch.testing.assert_close(found.probability, expected.probability, atol=2e-6, rtol=2e-6)
        torch.testing.assert_close(found.entropy, expected.entropy, atol=2e-5, rtol=2e-6)
        alone = decoder.unmask(hidden[7:8], warmth[7:8], [None], uniform[7:8])
        assert torch.equal(alone.token, found.token[7:8])
        assert torch.equal(alone.probability, found.probability[7:8])


def test_the_head_among_extreme_logits() -> None:
    """Large ones, equal ones (the first is taken) and a sure one."""
    model = network("llama", vocab_size=1500, tie_word_embeddings=False, **SHAPES[1])
    weights = take_weights(model)
    head = torch.zeros(1500, 64)
    head[:, 0] = torch.linspace(-1e4, 1e4, 1500)
    head[[7, 1400], 1] = 5.0
    decoder = CompiledDecoder(replace(weights, head=head))
    hidden = torch.zeros(2, 64)
    hidden[0, 0] = hidden[1, 1] = 1.0
    found = decoder.unmask(hidden, [0.0, 0.0], [None, None])
    assert found.token.tolist() == [1499, 7]
    exact = decoder.logits(hidden).double().softmax(-1)
    torch.testing.assert_close(found.entropy.double(), torch.special.entr(exact).sum(-1), atol=1e-5, rtol=1e-5)
    assert found.margin[1] == 0 and found.margin[0] > 0.9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """Threads do not survive a fork; a child that waited for them would hang."""
    decoder = CompiledDecoder(take_weights(network("llama", **SHAPES[1])))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        hidden = torch.randn(20, 64)
        expected = decoder.logits(hidden)
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(0 if torch.equal(decoder.logits(hidden), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


def test_several_python_threads_at_once() -> None:
    """Each decoder belongs to one thread; the threads inside are shared in turn."""
    model = network("llama", torch.bfloat16, **SHAPES[1])
    decoders = [CompiledDecoder(take_weights(model)) for _ in range(3)]
    tokens, seen = drawn(40), torch.ones(40, 40).bool()

    def work(decoder: CompiledDecoder) -> list[torch.Tensor]:
        return [run(decoder, [(row_of(decoder), tokens, torch.arange(40), seen)])[0] for _ in range(10)]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(3) as threads:
            found = [logits for part in threads.map(work, decoders) for logits in part]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, found[0]) for other in found[1:])
