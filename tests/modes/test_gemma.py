"""DiffusionGemma: transformers' own `generate` beside our engine, draw by draw, and what it does not have."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DiffusionGemmaForBlockDiffusion

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.conformance.replay import Regenerated
from dllm_plugins.conformance.replay import Replay
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.modes.diffusion_gemma import entropies
from dllm_plugins.modes.diffusion_gemma import within_bound
from dllm_plugins.noise import RowNoise

from .batches import NEVER
from .batches import equal_alone
from .tiny_gemma import LENGTH
from .tiny_gemma import VOCABULARY
from .tiny_gemma import WINDOW

SHORT = {"entropy_bound": 0.5}


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, 60, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def request(tokens: list[int], options: dict[str, Any] | None = None, **more: Any) -> Request:
    stops = more.pop("stop_ids", NEVER)
    noise = more.pop("noise", None)
    config = {"max_new_tokens": 18, "steps": 4, "preset_options": SHORT | (options or {})} | more
    return Request(tokens, SamplingConfig(**config), stop_ids=stops, noise=noise)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_it_is_transformers_own_generate(gemma_folder: Path, gemma: Model, length: int) -> None:
    """The same tokens from the same draws, before and beyond the sliding window."""
    reference = DiffusionGemmaForBlockDiffusion.from_pretrained(gemma_folder, dtype=torch.float32)
    tokens = prompt(length)
    torch.manual_seed(length)
    options = {"max_denoising_steps": 4, "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", **SHORT}}
    config = type(reference.generation_config)(max_new_tokens=18, **options)
    expected = reference.generate(torch.tensor([tokens]), generation_config=config).sequences[0, length:]
    noise = Replay(Regenerated(length, 1, LENGTH), 0, length, LENGTH)
    [found] = gemma.engine().generate([request(tokens, noise=noise)])
    assert list(found.tokens) == expected.tolist()


def test_a_batch_equals_its_rows_alone(gemma: Model) -> None:
    """Unequal prompts, lengths and seeds; some stop early."""
    rows = [
        request(prompt(3), seed=1),
        request(prompt(20), seed=2, max_new_tokens=7),
        request(prompt(9), {"stability_threshold": 0, "confidence_threshold": 9.0}, seed=3),
    ]
    equal_alone(gemma, rows)


def test_max_new_tokens_is_kept(gemma: Model) -> None:
    """The last canvas is denoised as a whole; what lies behind the answer is dropped."""
    [whole] = gemma.engine().generate([request(prompt(5), seed=4)])
    [part] = gemma.engine().generate([request(prompt(5), seed=4, max_new_tokens=8)])
    assert part.tokens == whole.tokens[:8]
    assert part.reason == "length"
    assert part.usage.passes == {"prefill": 1, "predict": 7}


def test_drafts_are_argmax_canvases(gemma: Model) -> None:
    """Each shows all of the canvas that is denoised; the id of open positions is never among them."""
    events = list(gemma.engine().stream(request(prompt(5), seed=4)))
    drafts = [event for event in events if isinstance(event, Draft)]
    assert all(token is None or 0 <= token < VOCABULARY for draft in drafts for token in draft.tokens)
    assert [sum(token is not None for token in draft.tokens) for draft in drafts] == ([6] * 3 + [0]) * 2 + [6] * 3
    assert isinstance(events[-1], Finish)
    assert events[-1].tokens[-LENGTH:][:5] != drafts[0].tokens[:5]


def test_it_samples_without_a_temperature(gemma: Model) -> None:
    """A seed is drawn and reported, and gives the same answer again."""
    first, other = gemma.engine().generate([request(prompt(5)), request(prompt(5))])
    assert first.usage.seed is not None
    assert first.tokens != other.tokens
    [again] = gemma.engine().generate([request(prompt(5), seed=first.usage.seed)])
    assert again.tokens == first.tokens


def test_a_stop_id_ends_the_answer(gemma: Model) -> None:
    """What stands behind it is dropped, and no further canvas is begun."""
    [whole] = gemma.engine().generate([request(prompt(5), seed=4)])
    stop = whole.tokens[8]
    begin = whole.tokens.index(stop)
    [found] = gemma.engine().generate([request(prompt(5), seed=4, stop_ids=frozenset({stop}))])
    assert (found.tokens, found.stop_token, found.reason) == (whole.tokens[:begin], stop, "eos")
    assert found.usage.total_passes == 4 * (begin // LENGTH + 1)


def test_stability_and_confidence_end_a_canvas(gemma: Model) -> None:
    """With nothing to wait for one pass is enough; one equal canvas takes at least two."""
    sure = {"confidence_threshold": 9.0, "t_min": 0.01, "t_max": 0.02, "entropy_bound": 99.0}
    [now] = gemma.engine().generate([request(prompt(5), sure | {"stability_threshold": 0}, seed=1)])
    [later] = gemma.engine().generate([request(prompt(5), sure | {"stability_threshold": 1}, seed=1, steps=40)])
    assert now.usage.total_passes == 3
    assert 6 <= later.usage.total_passes < 120


def test_a_canvas_can_be_given(gemma: Model) -> None:
    """It decides the first pass; the noise of later ones stays."""
    begun = [
        next(
            event
            for event in gemma.engine().stream(request(prompt(5), {"decoder_input_ids": tokens}, seed=1))
            if isinstance(event, Draft)
        ).tokens[:LENGTH]
        for tokens in (prompt(LENGTH, 1), prompt(LENGTH, 2), prompt(LENGTH, 1))
    ]
    assert begun[0] == begun[2] != begun[1]


def test_the_encoder_cache_is_exact(gemma: Model) -> None:
    """A prefix frozen in pieces, or taken over in part, says what one call says."""
    denoiser, tokens, canvas = gemma.denoiser, prompt(20), prompt(LENGTH, 1)

    def decoded(row: int, begin: int) -> torch.Tensor:
        known = Segment(row, tokens[begin:], range(begin, 20))
        positions = range(20, 20 + LENGTH)
        open_ = Segment(row, canvas, positions, causal=False, behind=((0, 20 - begin),), wanted=range(LENGTH))
        return denoiser.logits(denoiser.forward([known, open_])[1])

    whole = decoded(denoiser.open_row(), 0)
    row = denoiser.open_row()
    for begin, count in ((0, 5), (5, 9)):
        denoiser.forward([Segment(row, tokens[begin:], range(begin, 20))])
        denoiser.freeze(row, count)
    assert torch.allclose(decoded(row, 14), whole, atol=1e-5)
    assert torch.allclose(decoded(denoiser.open_row(denoiser.close_row(row), 11), 11), whole, atol=1e-5)


def test_the_last_logits_condition_the_next_pass(gemma: Model) -> None:
    """The same canvas says something else once the model is told what it said before."""
    row, canvas = gemma.denoiser.open_row(), prompt(LENGTH)
    gemma.denoiser.forward([Segment(row, prompt(4), range(4))])
    gemma.denoiser.freeze(row, 4)
    told = [None, torch.zeros(LENGTH, VOCABULARY), torch.zeros(LENGTH, VOCABULARY).index_fill(1, torch.tensor(3), 9.0)]
    said = [
        gemma.denoiser.forward(
            [Segment(row, canvas, range(4, 10), causal=False, wanted=range(LENGTH), conditioning=logits)]
        )[0]
        for logits in told
    ]
    assert not torch.allclose(said[0], said[1])
    assert not torch.allclose(said[1], said[2])


@pytest.mark.parametrize(
    ("options", "common", "named"),
    [
        ({}, {"temperature": 0.7}, "temperature=0.7"),
        ({}, {"top_k": 5}, "top_k=5"),
        ({}, {"approximate_cache": "prefix"}, "approximate_cache"),
        ({}, {"threshold": 0.5}, "threshold=0.5"),
        ({"t_min": 0.8}, {}, "t_max=0.8"),
        ({"entropy_bound": 0.0}, {}, "entropy_bound"),
        ({"confidence_threshold": 0.0}, {}, "confidence_threshold"),
        ({"stability_threshold": -1}, {}, "stability_threshold"),
        ({"remasking": "random"}, {}, "remasking"),
        ({"decoder_input_ids": (1, 2)}, {}, "give 6 ids"),
        ({"decoder_input_ids": (1, 2, 3, 4, 5, VOCABULARY)}, {}, "from 0 to 63"),
        ({}, {"seed": 1, "noise": RowNoise(2)}, "seed=1"),
    ],
)
def test_bad_options_are_refused(gemma: Model, options: dict[str, Any], common: dict[str, Any], named: str) -> None:
    """When the request is admitted, by name."""
    with pytest.raises(OptionError, match=named):
        gemma.engine().admit(request(prompt(3), options, **common))


def test_there_is_no_mask_to_name(gemma_folder: Path, gemma: Model) -> None:
    """Its id is outside the vocabulary; giving one is refused."""
    assert gemma.denoiser.spec.mask_id == VOCABULARY
    assert gemma.denoiser.spec.stop_ids == {2}
    with pytest.raises(OptionError, match="mask_id=3"):
        load_model(str(gemma_folder), mask_id=3)


def test_the_checkpoint_may_set_options(gemma_folder: Path, tmp_path: Path) -> None:
    """Those of its generation_config.json hold, unless a request says otherwise."""
    shutil.copytree(gemma_folder, tmp_path / "set")
    config = {"max_denoising_steps": 3, "t_max": 0.6, "sampler_config": {"entropy_bound": 2.0}, "t_min": None}
    (tmp_path / "set" / "generation_config.json").write_text(json.dumps(config))
    model = load_model(str(tmp_path / "set"), dtype="float32", device="cpu")
    short, long = SamplingConfig(max_new_tokens=LENGTH, seed=1), SamplingConfig(max_new_tokens=LENGTH, seed=1, steps=5)
    found = model.engine().generate([Request(prompt(3), config, stop_ids=NEVER) for config in (short, long)])
    assert [finish.usage.total_passes for finish in found] == [3, 5]
    said = short.with_options(steps=3, preset_options={"t_max": 0.6, "entropy_bound": 2.0})
    assert model.engine().generate([Request(prompt(3), said, stop_ids=NEVER)])[0].tokens == found[0].tokens
    with pytest.raises(OptionError, match="t_max"):
        model.engine().admit(request(prompt(3), {"t_min": 0.7}))


def test_the_bound_keeps_the_surest_and_no_more() -> None:
    """Sums without the last one: 0, .1, .3, .6; the surest is kept whatever the bound."""
    entropy = torch.tensor([0.3, 0.1, 0.4, 0.2])
    assert within_bound(entropy, 0.35).tolist() == [True, True, False, True]
    assert within_bound(entropy, 1e-9).tolist() == [False, True, False, False]
    uniform = entropies(torch.zeros(2, 8))
    assert torch.allclose(uniform, torch.tensor(8.0).log().expand(2))
