"""Mode `pair`: whatever drafts, and however well, the text is that of the target's own mode `ar`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.pairs.drafter import Drafter
from dllm_plugins.prediction import GREEDY
from dllm_plugins.sharing import SharedModel

from ..modes.tiny_models import VOCABULARY
from ..modes.tiny_models import random_model
from .paired import paired

#: Who sees whom in the families that can draft, and what else their specs say.
DRAFTERS: dict[str, dict[str, Any]] = {
    "block-causal": {"attention": "block-causal"},
    "block-causal, shifted": {"attention": "block-causal", "shifted": True},
    "causal, shifted": {"attention": "causal", "shifted": True},
    "causal, reordered": {"attention": ""},
    "causal context": {"attention": "causal context, bidirectional block"},
    "bidirectional": {"attention": "bidirectional", "cache": "none", "holds": True},
    "bidirectional, shifted": {"attention": "bidirectional", "cache": "none", "holds": True, "shifted": True},
    "whole canvases": {"attention": "own", "cache": "none"},
}
PROMPTS = [[5], [7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], [*range(10, 27)]]
SAMPLING: list[dict[str, Any]] = [
    {},
    {"temperature": 0.8},
    {"temperature": 1.2, "top_k": 7},
    {"top_p": 0.7, "temperature": 1},
]
NEVER: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def target() -> Model:
    return random_model("ar", seed=1, mask_id=VOCABULARY, attention="causal")


@pytest.fixture(scope="module")
def pairs(target: Model) -> Callable[[str], Model]:
    return lambda kind: paired(target, random_model("diffusion", seed=2, **DRAFTERS[kind]))


def requests(mode: str, **options: Any) -> list[Request]:
    """Unequal prompts, lengths, and ways to draw."""
    return [
        Request(
            prompt,
            SamplingConfig(
                mode=mode, max_new_tokens=20 + 3 * number, seed=number if sampling else None, **sampling, **options
            ),
            stop_ids=NEVER,
        )
        for number, (prompt, sampling) in enumerate(zip(PROMPTS, SAMPLING, strict=True))
    ]


@pytest.mark.parametrize("kind", DRAFTERS)
def test_the_text_is_the_targets_own(target: Model, pairs: Callable[[str], Model], kind: str) -> None:
    """Greedy and sampled, alone and in company, with few drafts and many; the pair's mode `ar`, too."""
    expected = [found.tokens for found in target.engine().generate(requests("ar"))]
    pair = pairs(kind)
    assert [found.tokens for found in pair.engine().generate(requests("ar"))] == expected
    for length in (1, 3, 8):
        found = pair.engine().generate(requests("pair", draft_length=length))
        assert [one.tokens for one in found] == expected
        for one in found:
            assert one.usage.drafts is not None
            assert one.usage.drafts["denoiser_verified"] > 0
            assert one.usage.passes["draft"] > 0
            assert one.usage.passes["prefill"] == 1
    alone = [pair.engine().generate([request])[0] for request in requests("pair")]
    assert [one.tokens for one in alone] == expected
    assert all(one.usage.passes["draft"] >= 4 for one in alone[1:])


@pytest.mark.parametrize("kind", ["block-causal", "block-causal, shifted", "causal, shifted", "causal context"])
def test_cached_drafts_are_those_of_a_whole_text(kind: str) -> None:
    """Where the drafter's cache is exact, what it says behind a text that grew is what it says of it at once."""
    denoiser = random_model("diffusion", seed=2, **DRAFTERS[kind]).denoiser
    growing, text = Drafter(denoiser, VOCABULARY), [*PROMPTS[2]]
    for number, more in enumerate(([], [3], [4, 5], [6, 7, 8, 9, 10], [2])):
        text = [*text, *more]
        asked = (text, [GREEDY] * 4)
        [cached] = growing.draft({0: asked}).values()
        [whole] = Drafter(denoiser, VOCABULARY).draft({number: asked}).values()
        assert torch.equal(cached[:, 0], whole[:, 0])
        torch.testing.assert_close(cached[:, 1], whole[:, 1])


def test_right_drafts_are_taken() -> None:
    """A causal, shifted drafter with the target's weights says of the next token what the target says."""
    twin = random_model("ar", seed=1, attention="causal")
    pair = paired(twin, random_model("diffusion", seed=1, attention="causal", shifted=True))
    for mode_options in ({}, {"temperature": 0.9, "seed": 4}):
        config = SamplingConfig(mode="pair", max_new_tokens=21, draft_length=1, **mode_options)
        [found] = pair.engine().generate([Request(PROMPTS[1], config, stop_ids=NEVER)])
        assert found.usage.drafts is not None
        assert found.usage.drafts["denoiser_accepted"] == found.usage.drafts["denoiser_verified"] == 10
        # A token of the prompt's pass, then two of each.
        assert found.usage.passes == {"prefill": 1, "draft": 10, "verify": 10}


def test_the_default_model_drafts(tiny: Model) -> None:
    """Its open rows stand at the positions before them, and its head knows the token on the left."""
    expected = [found.tokens for found in tiny.engine().generate(requests("ar"))]
    for length in (1, 5):
        found = paired(tiny, tiny).engine().generate(requests("pair", draft_length=length))
        assert [one.tokens for one in found] == expected
        assert all(one.usage.passes["draft"] > 2 for one in found)


def test_a_vocabulary_of_another_size(target: Model) -> None:
    """Ids that only one of the two has are never proposed, and cost drafts where they are in the text."""
    from dllm_plugins.denoisers.kernel import KernelDenoiser

    from ..modes.tiny_models import random_network
    from ..modes.tiny_models import spec

    network = random_network(3)
    network.resize_token_embeddings(VOCABULARY - 4)
    made = spec("diffusion", attention="block-causal", vocabulary=VOCABULARY - 4, mask_id=VOCABULARY - 5)
    small = Model("small", KernelDenoiser(network, made), target.tokenizer)
    expected = [found.tokens for found in target.engine().generate(requests("ar"))]
    found = paired(target, small).engine().generate(requests("pair"))
    assert [one.tokens for one in found] == expected
    assert any(set(one.tokens) & {*range(VOCABULARY - 4, VOCABULARY)} for one in found)


def test_the_next_turn_forwards_what_is_new(target: Model, pairs: Callable[[str], Model]) -> None:
    """Both models keep their prefixes, and the next turn's text is the same as without."""
    for kind in ("block-causal", "bidirectional", "causal context"):
        shared = SharedModel(pairs(kind))
        [first] = shared.generate(requests("pair")[:1])
        prompt = [*PROMPTS[0], *first.tokens, 9, 9]
        again = Request(prompt, SamplingConfig(mode="pair", max_new_tokens=12), stop_ids=NEVER)
        [second] = shared.generate([again])
        assert second.usage.cached_tokens >= len(prompt) - 4
        plain = Request(prompt, SamplingConfig(mode="ar", max_new_tokens=12), stop_ids=NEVER)
        assert second.tokens == target.engine().generate([plain])[0].tokens


def test_no_room_for_drafts(target: Model) -> None:
    """A drafter with a shorter context leaves the target alone where it ends."""
    pair = paired(target, random_model("diffusion", seed=2, attention="block-causal", context=16))
    expected = [found.tokens for found in target.engine().generate(requests("ar"))]
    found = pair.engine().generate(requests("pair"))
    assert [one.tokens for one in found] == expected
    assert found[3].usage.passes.get("draft", 0) == 0
    assert found[0].usage.passes["draft"] > 0


def test_statistics_and_a_stream(pairs: Callable[[str], Model]) -> None:
    """Commits add up to the answer; drafts are shown before they are verified; seconds tell of drafting."""
    config = SamplingConfig(mode="pair", max_new_tokens=16, stats=True)
    events = list(pairs("causal context").engine().stream(Request(PROMPTS[1], config, stop_ids=NEVER)))
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.usage.parts is not None
    tokens = [token for event in events if isinstance(event, Commit) for token in event.tokens]
    assert tuple(tokens) == finish.tokens
    assert any(token is not None for event in events if isinstance(event, Draft) for token in event.tokens)
    assert finish.usage.parts["forward/draft"] > 0


def test_what_a_pair_refuses(target: Model, pairs: Callable[[str], Model]) -> None:
    """Modes and options that are another's, and models that cannot draft, by name."""
    engine = pairs("block-causal").engine()
    with pytest.raises(
        OptionError, match=r"unknown mode 'llada'; modes of pair of two: pair, ar, alternating, diffusion"
    ):
        engine.admit(Request([1], SamplingConfig(mode="llada")))
    with pytest.raises(OptionError, match="steps=3 has no effect in mode 'pair'"):
        engine.admit(Request([1], SamplingConfig(mode="pair", steps=3)))
    with pytest.raises(OptionError, match="cannot draft for a pair: it has no mask"):
        paired(target, target)
