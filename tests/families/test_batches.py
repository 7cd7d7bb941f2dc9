"""Every family, mode and cache: a batch of unequal prompts equals its rows alone, and answers are whole."""

from collections.abc import Iterator
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load

from ..golden.cases import case_folders
from ..golden.cases import modes_of

CASES = {folder.name: Case(folder) for folder in case_folders()}


def ways(case: Case, model: Model) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Each sampler once, with each approximate cache it can have."""
    spec, samplers = model.denoiser.spec, model.engine().modes
    # LLaDA2 makes as many passes as its blocks are long, 32 by default, each of which is like the others.
    fewer = {"steps": 8} if case.name.startswith("llada2") else {}
    for mode, own in modes_of(case, model):
        holds = spec.holds and "approximate_cache" in samplers[mode].options
        steps = fewer if "steps" in samplers[mode].options else {}
        for kind in (None, "prefix", "dual") if holds else (None,):
            yield {"mode": mode, "preset_options": own, **steps}, kind


def requests_of(model: Model, mode: dict[str, Any], kind: str | None, first: int) -> list[Request]:
    """Unequal prompts and budgets; prompts of whole blocks and of less than one among them.

    Two greedy rows beside two sampled ones, so that neither sees what the other is, and neither
    shares its noise. One of either two has a prompt that ends inside a block, and one a prompt of
    whole blocks; from mode to mode the two kinds change places.

    :param first: even if the first row is greedy.
    """
    spec = model.denoiser.spec
    ids = [token for token in range(20, spec.vocabulary) if token not in (*spec.stop_ids, spec.mask_id)]
    found = []
    for number, length in enumerate((3, 16, 11, 8)):
        options: dict[str, Any] = {
            **mode,
            # DiffusionGemma samples by a schedule of its own.
            "temperature": 0.0 if mode["mode"] == "diffusion_gemma" else 0.8 * ((first + number) % 2),
            "seed": number,
            "max_new_tokens": 9 + number,
        }
        if kind is not None:
            options["approximate_cache"] = kind
        prompt = [ids[(7 * number + 3 * position) % len(ids)] for position in range(length)]
        found.append(Request(prompt, SamplingConfig(**options), stop_ids=frozenset()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_batch_equals_its_rows_alone(name: str) -> None:
    """Tokens, passes and statistics; the budget is kept and no open position leaks."""
    model = CaseModels(CASES[name]).get(**first_load(CASES[name]))
    for turn, (mode, kind) in enumerate(ways(CASES[name], model), list(CASES).index(name)):
        requests = requests_of(model, mode, kind, turn)
        together = model.engine().generate(requests)
        # A greedy row and a drawn one; from mode to mode the first two and the last.
        pair = slice(2 * (turn % 2), 2 * (turn % 2) + 2)
        alone = [model.engine().generate([request])[0] for request in requests[pair]]
        assert [told(finish) for finish in together[pair]] == [told(finish) for finish in alone], (mode, kind)
        for request, finish in zip(requests, together, strict=True):
            assert 0 < len(finish.tokens) <= request.config.max_new_tokens
            assert model.denoiser.spec.mask_id not in finish.tokens
            assert finish.usage.cache in (("approximate",) if kind else ("exact", model.denoiser.spec.cache))
        assert model.denoiser.open_rows == 0  # type: ignore[attr-defined]


def told(finish: Finish) -> tuple[Any, ...]:
    """What must not depend on a row's company."""
    return finish.tokens, finish.reason, finish.usage.passes, finish.usage.rows
