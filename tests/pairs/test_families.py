"""Every family that has a mask drafts for a target of another one, and a Nemotron verifies."""

from dataclasses import replace

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.training.solvable import Letters

from ..golden.cases import CLONED
from ..modes.tiny_models import random_network
from ..modes.tiny_models import spec
from .paired import paired

NEVER: frozenset[int] = frozenset()
CASES = sorted(CLONED.keys() - {"diffusion_gemma"})


def drafter(name: str) -> Model:
    """A golden checkpoint, in float32."""
    case = Case(CLONED[name])
    found: Model = CaseModels(case).get(**first_load(case))
    return found


def target(size: int) -> Model:
    """A random Qwen3 with so many ids."""
    network = random_network(1)
    network.resize_token_embeddings(size)
    made = spec("ar", vocabulary=size, mask_id=size, stop_ids=NEVER, attention="causal")
    return Model("target", KernelDenoiser(network, made), Letters())


def requests(mode: str) -> list[Request]:
    """Greedy and sampled."""
    prompts = ([5, 6, 7], [*range(1, 14)])
    return [
        Request(
            prompt,
            SamplingConfig(mode=mode, max_new_tokens=14, temperature=0.8 * number, seed=number or None),
            stop_ids=NEVER,
        )
        for number, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_family_drafts(case: str) -> None:
    """The text is the target's, and drafts are made all along."""
    made = drafter(case)
    own = target(made.denoiser.spec.vocabulary)
    expected = [found.tokens for found in own.engine().generate(requests("ar"))]
    engine = paired(own, made).engine()
    fixed = [replace(one, config=one.config.with_options(draft_length=3)) for one in requests("pair")]
    found = engine.generate(fixed)
    assert [one.tokens for one in found] == expected
    for one in found:
        assert one.usage.drafts is not None
        assert one.usage.drafts["denoiser_verified"] >= 10
        assert one.usage.passes["draft"] >= 4


def test_a_nemotron_verifies() -> None:
    """Its own mode `ar`, in float32."""
    own = drafter("nemotron_labs")
    expected = [found.tokens for found in own.engine().generate(requests("ar"))]
    found = paired(own, drafter("sdar")).engine().generate(requests("pair"))
    assert [one.tokens for one in found] == expected


def test_what_has_no_mask_does_not_draft() -> None:
    with pytest.raises(OptionError, match="cannot draft for a pair: it has no mask"):
        paired(target(40), drafter("diffusion_gemma"))
