"""`batch_invariant=False`: rows of every family share calls, and each says what it says alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3MoeForCausalLM

from dllm_kernels.decoder.plain import PlainDecoder
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load
from dllm_plugins.denoisers import kernel as kernel_module
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.gemma import GemmaDenoiser
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.families.batching import wants_invariant
from dllm_plugins.load_options import LoadOptions

from ..golden.cases import CLONED
from ..golden.cases import case_folders

CASES = [pytest.param(Case(folder), id=folder.name) for folder in case_folders()]
#: DiffusionGemma's rows stay apart.
TOGETHER = [each for each in CASES if each.id != "diffusion_gemma"]
#: One of each class, and of each way to see.
PLAIN = ("dream", "llada2_0", "llada_moe", "nemotron_labs", "sdar", "wedlm_qwen3")
#: Prompts of less than a block, of whole blocks and of more.
LENGTHS = (3, 16, 11)


def loaded(case: Case, **options: Any) -> Model:
    return CaseModels(case).get(**first_load(case), **options)


def requests_of(model: Model, **options: Any) -> list[Request]:
    """Unequal prompts and budgets, greedy and drawn."""
    spec, samplers = model.denoiser.spec, model.engine().modes
    ids = [token for token in range(20, spec.vocabulary) if token not in (*spec.stop_ids, spec.mask_id)]
    own = spec.samplers[spec.modes[0]]
    # LLaDA2 makes as many passes as its blocks are long, and DiffusionGemma has a schedule of temperatures.
    steps = {"steps": 4} if own.startswith("llada2") and "steps" in samplers[own].options else {}
    hot = 0.0 if own == "diffusion_gemma" else 0.8
    return [
        Request(
            [ids[(7 * number + 3 * position) % len(ids)] for position in range(length)],
            SamplingConfig(max_new_tokens=6 + number, temperature=hot * (number % 2), seed=number, **steps, **options),
            stop_ids=frozenset(),
        )
        for number, length in enumerate(LENGTHS)
    ]


@pytest.mark.parametrize("case", TOGETHER)
def test_rows_in_one_call_say_what_they_say_alone(case: Case) -> None:
    """Tokens, passes and rows, beside the model that forwards rows one by one; the statistics tell of it."""
    together, apart = loaded(case, batch_invariant=False), loaded(case)
    caches: list[dict[str, Any]] = [{}, {"approximate_cache": "dual"}] if apart.denoiser.spec.holds else [{}]
    for cache in caches:
        found = together.engine().generate(requests_of(together, **cache))
        alone = apart.engine().generate(requests_of(apart, **cache))
        for one, other in zip(found, alone, strict=True):
            assert (one.tokens, one.usage.passes, one.usage.rows) == (
                other.tokens,
                other.usage.passes,
                other.usage.rows,
            )
        assert together.denoiser.spec.batched
        assert not apart.denoiser.spec.batched
        shared = [finish.usage.shared_passes or 0 for finish in found]
        # Whole sequences of other lengths are calls of their own, lest they be mostly padding.
        assert all(shared) or (together.denoiser.own_mask and any(shared))  # type: ignore[attr-defined]
        assert {finish.usage.shared_passes for finish in alone} == {0}
        assert {finish.usage.numerics for finish in found} == {"approximate"}


@pytest.mark.parametrize("case", [each for each in CASES if each.id in PLAIN])
def test_it_is_what_transformers_own_attention_says(case: Case) -> None:
    """The same class with its own attention and cache, which copies prefixes, decodes the same tokens."""
    model = loaded(case)
    ours: Any = model.denoiser
    plain = NativeDenoiser(ours.model, ours.spec, plain=True)
    requests = requests_of(model)[:2]
    found = model.engine().generate(requests)
    expected = Model(model.name, plain, model.tokenizer).engine().generate(requests)
    assert [finish.tokens for finish in found] == [finish.tokens for finish in expected]


def test_an_encoder_and_its_decoder_say_what_they_say_plainly() -> None:
    """DiffusionGemma behind more than its window: encoded, canvases behind all of that and part of it, conditioned."""
    ours: Any = loaded(Case(CLONED["diffusion_gemma"])).denoiser
    both = (ours, GemmaDenoiser(ours.model, ours.spec, plain=True))
    length = ours.window + 5
    drawn = torch.randint(20, 200, (length + 16,), generator=torch.Generator().manual_seed(1)).tolist()
    prompt, new, canvas = drawn[:length], drawn[length : length + 4], drawn[length + 4 :]

    def open_at(begin: int, **fields: Any) -> Segment:
        places = range(begin, begin + len(canvas))
        return Segment(1, canvas, places, noisy=True, causal=False, wanted=range(len(canvas)), **fields)

    said = torch.randn(len(canvas), ours.spec.vocabulary)
    passes = (
        (length, [Segment(1, prompt, range(length)), open_at(length, behind=((0, length),))]),
        (0, [open_at(length, conditioning=said)]),
        (3, [Segment(1, new, range(length, length + 4), wanted=[3]), open_at(length + 3, behind=((0, 3),))]),
        (0, [open_at(length + 3)]),
    )
    for denoiser in both:
        denoiser.open_row()
    for frozen, segments in passes:
        found, expected = (torch.cat(denoiser.forward(segments)) for denoiser in both)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        for denoiser in both:
            denoiser.freeze(1, frozen)
    assert both[0].close_row(1).length == both[1].close_row(1).length == length + 3


@pytest.mark.parametrize("name", ["llada2_0", "llada_moe"])
def test_a_pass_routes_all_rows_at_once(name: str) -> None:
    """Each mixture of experts is asked once, for the positions of all rows."""
    denoiser: Any = loaded(Case(CLONED[name]), batch_invariant=False).denoiser
    seen: list[int] = []
    experts = [
        each for each in denoiser.model.modules() if isinstance(getattr(each, "gate_up_proj", None), torch.Tensor)
    ]
    for module in experts:
        module.register_forward_pre_hook(lambda _module, given: seen.append(len(given[0])))
    rows = [denoiser.open_row() for _ in LENGTHS]
    denoiser.forward([Segment(row, [25] * length, range(length)) for row, length in zip(rows, LENGTHS, strict=True)])
    assert experts
    assert set(seen) == {sum(LENGTHS)}
    assert len(seen) <= len(experts)


def test_it_is_off_on_cpus_and_can_be_promised() -> None:
    """The block decoder shares products whatever is said, and keeps the promise."""
    folder = str(CLONED["sdar"] / "checkpoint")
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    for promised in (None, True):
        native = load_model(folder, backend="torch", batch_invariant=promised, **options).denoiser
        assert isinstance(native, NativeDenoiser)
        assert not native.spec.batched
    for promised in (None, True, False):
        ours = load_model(folder, batch_invariant=promised, **options).denoiser
        assert ours.spec.numerics == "row-invariant"
    assert load_model(folder, backend="torch", batch_invariant=False, **options).denoiser.spec.batched


def test_accelerators_share_calls_unless_it_is_promised() -> None:
    """Whatever the kind of device; nothing is loaded for it."""
    options = LoadOptions()
    kinds = [torch.device(kind) for kind in ("cpu", "cuda", "meta")]
    assert [wants_invariant(options, kind, Qwen3MoeForCausalLM) for kind in kinds] == [True, False, False]
    assert wants_invariant(LoadOptions(batch_invariant=True), torch.device("cuda"), Qwen3MoeForCausalLM)


def test_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the promise is not kept, and where rows are always forwarded one by one."""
    folder = str(CLONED["sdar"] / "checkpoint")
    with pytest.raises(OptionError, match="leave batch_invariant=False or compile out"):
        load_model(folder, compile=True, batch_invariant=False, device="cpu")
    gemma = str(CLONED["diffusion_gemma"] / "checkpoint")
    with pytest.raises(
        OptionError, match=r"batch_invariant=False decodes other tokens with DiffusionGemma.*leave it out"
    ):
        load_model(gemma, batch_invariant=False, device="cpu")
    with pytest.raises(OptionError, match="batch_invariant='no': give True or False or None"):
        load_model(folder, batch_invariant="no")
    with pytest.raises(OptionError, match=r"batch_invariant=False has no effect on .* one by one; leave it out"):
        load_model("dllm", backend="llama_cpp", base=str(tmp_path), batch_invariant=False)
    monkeypatch.setattr(PlainDecoder, "promises", classmethod(lambda *_: False))
    monkeypatch.setattr(kernel_module, "kernel", lambda *_: PlainDecoder)
    with pytest.raises(
        OptionError, match=r"batch_invariant=True cannot be had with .*leave it out, or give device='cpu'"
    ):
        load_model(folder, backend="kernels", batch_invariant=True, device="cpu")
