"""Likelihoods against an exactly solvable model, sums over orders, and whole sequences forwarded one by one."""

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.likelihood.patterns import patterns
from dllm_plugins.likelihood.scoring import Sampling
from dllm_plugins.likelihood.scoring import log_likelihood
from dllm_plugins.models import load_model
from dllm_plugins.noise import RowNoise
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.chain import sequence_number
from dllm_plugins.training.solvable import solvable_model
from dllm_transformers import DiffusionModelForCausalLM

from ..dllm_transformers.checkpoints import copy_of

PROMPT, TARGET = (0, 2, 1), (1, 0, 2, 2, 0)
WAYS: dict[str, dict[str, Any]] = {
    "autoregressive": {"modes": ("ar",), "shifted": True},
    "whole": {"modes": ("llada",), "attention": "bidirectional"},
    "whole, shifted": {"modes": ("dream",), "attention": "bidirectional", "shifted": True},
    "blocks": {"modes": ("sdar",), "attention": "block-causal", "block_length": 4},
    "blocks, shifted": {"modes": ("fast_dllm_v2",), "attention": "block-causal", "block_length": 4, "shifted": True},
}
Said = Callable[[list[int]], Tensor]


@pytest.mark.parametrize("way", WAYS)
def test_the_truth_of_a_solvable_model(way: str) -> None:
    """Its posteriors agree with one another, so that every order, and so every bound, gives the exact likelihood.

    What is drawn scatters about it.
    """
    chain = Chain.random(3, 3, 4)
    model = solvable_model(chain, **WAYS[way])
    number = int(sequence_number(torch.tensor([TARGET]), chain.vocabulary))
    exact = float(chain.distribution(len(TARGET), PROMPT)[number].log())
    found = log_likelihood(model.denoiser, PROMPT, TARGET, Sampling(31, together=3))
    assert found.logprob == pytest.approx(exact, abs=1e-9)
    drawn = [log_likelihood(model.denoiser, PROMPT, TARGET, Sampling(5, seed=seed)).logprob for seed in range(30)]
    spread = float(torch.tensor(drawn).std()) / math.sqrt(len(drawn))
    assert abs(sum(drawn) / len(drawn) - exact) < 4 * spread + 1e-9


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_all_patterns_weigh_each_token_once(count: int) -> None:
    """So does the mean of those that are drawn, for the count of tokens in all."""
    noise = RowNoise(0)
    for found in (patterns(count, 200, noise, 0), patterns(count, count * 40, RowNoise(1), 0)):
        weights = [sum(one.weight for one in found if place in one.masked) for place in range(count)]
        assert sum(weights) == pytest.approx(count)
        assert all(one.masked == tuple(sorted(set(one.masked))) and one.masked for one in found)
    exact = patterns(count, 200, noise, 0)
    assert len(exact) == 2**count - 1
    assert [sum(one.weight for one in exact if place in one.masked) for place in range(count)] == pytest.approx(
        [1.0] * count
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = copy_of(name, tmp_path_factory.mktemp("likelihood") / name, tiny_folder)
        return folders[name]

    return folder


def denoiser_of(folder: Path) -> Denoiser:
    return load_model(str(folder), dtype="float32", backend="torch", device="cpu").denoiser


def reference(folder: Path, block_length: int | None = None) -> tuple[Said, Any]:
    """Log-probabilities [length, V] of one text by the whole-sequence forward."""
    model = DiffusionModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    more = {} if block_length is None else {"block_length": block_length}

    def said(tokens: list[int]) -> Tensor:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([tokens]), **more).logits[0].double(), -1)

    return said, model.spec


def orders(said: Said, tokens: list[int], places: list[int], mask: int, shift: int = 0) -> tuple[float, float]:
    """Over all orders of revealing these places: the mean log-likelihood, and the logarithm of the mean likelihood."""
    memory: dict[frozenset[int], Tensor] = {}
    found = []
    for order in permutations(places):
        total = 0.0
        for done, place in enumerate(order):
            hidden = frozenset(order[done:])
            if hidden not in memory:
                memory[hidden] = said([mask if index in hidden else token for index, token in enumerate(tokens)])
            total += float(memory[hidden][place - shift, tokens[place]])
        found.append(total)
    return sum(found) / len(found), float(torch.tensor(found).double().logsumexp(0)) - math.log(len(found))


@pytest.mark.parametrize(("name", "shift"), [("llada_dense", 0), ("dream", 1)])
def test_bound_is_the_mean_over_orders(name: str, shift: int, made: Callable[[str], Path]) -> None:
    """Against sums over orders, below the likelihood of texts revealed in a random order; what is drawn, near it."""
    said, spec = reference(made(name))
    prompt, target = [7, 9, 11], [12, 30, 8, 25]
    mean, exact = orders(said, [*prompt, *target], [3, 4, 5, 6], spec.mask_id, shift)
    denoiser = denoiser_of(made(name))
    whole = log_likelihood(denoiser, prompt, target, Sampling(15, together=4))
    assert whole.logprob == pytest.approx(mean, abs=1e-4)
    assert whole.logprob <= exact
    several = [log_likelihood(denoiser, prompt, target, Sampling(8, seed=seed)).logprob for seed in range(40)]
    spread = float(torch.tensor(several).std()) / math.sqrt(len(several))
    assert abs(sum(several) / len(several) - mean) < 4 * spread + 1e-4
    again = log_likelihood(denoiser, prompt, target, Sampling(8, seed=7, together=1)).logprob
    assert again == pytest.approx(several[7], abs=1e-5)


def test_blocks_behind_clean_ones(made: Callable[[str], Path]) -> None:
    """Each block's mean over orders; the last one is filled up with masks, the first begins in the prompt."""
    said, spec = reference(made("sdar"), 4)
    prompt, target = [7, 9, 11, 13, 15, 6], [12, 30, 8, 25, 40, 41, 9]
    tokens = [*prompt, *target]
    expected = 0.0
    for places, stop in (([6, 7], 8), ([8, 9, 10, 11], 12), ([12], 16)):
        text = [*tokens[: places[-1] + 1], *[spec.mask_id] * (stop - places[-1] - 1)]
        expected += orders(said, text, places, spec.mask_id)[0]
    found = log_likelihood(denoiser_of(made("sdar")), prompt, target, Sampling(15, block_length=4))
    assert found.logprob == pytest.approx(expected, abs=1e-4)


def test_shifted_blocks_begin_with_the_token_before(made: Callable[[str], Path]) -> None:
    """A block's first token is told by clean text, and is in view for the others."""
    said, spec = reference(made("fastdllm_v2"), 4)
    prompt, target = [7, 9, 11], [12, 30, 8, 25, 33]
    tokens = [*prompt, *target]
    expected = orders(said, tokens[:4], [3], spec.mask_id, 1)[0]
    expected += float(said(tokens[:4])[3, tokens[4]])
    expected += orders(said, tokens, [5, 6, 7], spec.mask_id, 1)[0]
    found = log_likelihood(denoiser_of(made("fastdllm_v2")), prompt, target, Sampling(15, block_length=4))
    assert found.logprob == pytest.approx(expected, abs=1e-4)


def test_autoregressive_likelihood_and_greedy_texts(tiny_folder: Path) -> None:
    """Of a tri-mode model, whose base reads the text: against transformers' own class; its greedy answer is greedy."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = load_model(
        "dllm", base=str(tiny_folder), denoiser=str(tiny_folder.parent / "denoiser.safetensors"), dtype="float32"
    )
    prompt = [65, 66, 67]
    greedy = base.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False, eos_token_id=None)[0, 3:].tolist()
    for target, is_greedy in ((greedy, True), ([*greedy[:4], (greedy[4] + 1) % 256], False)):
        with torch.no_grad():
            said = base(torch.tensor([[*prompt, *target]])).logits[0].log_softmax(-1)
        expected = sum(float(said[2 + place, token]) for place, token in enumerate(target))
        found = log_likelihood(model.denoiser, prompt, target)
        assert found.logprob == pytest.approx(expected, abs=1e-3)
        assert found.greedy is is_greedy


def test_greedy_of_masked_models(made: Callable[[str], Path]) -> None:
    """The text that reveals the surest position, one a pass, and no other."""
    said, spec = reference(made("llada_dense"))
    tokens, left = [7, 9, 11, *[spec.mask_id] * 4], [3, 4, 5, 6]
    while left:
        odds = said(tokens)[left]
        odds[:, spec.mask_id] = -math.inf
        best, token = odds.max(-1)
        place = int(best.argmax())
        tokens[left.pop(place)] = int(token[place])
    denoiser = denoiser_of(made("llada_dense"))
    other = [*tokens[3:6], (tokens[6] + 1) % spec.mask_id]
    assert log_likelihood(denoiser, tokens[:3], tokens[3:]).greedy
    assert not log_likelihood(denoiser, tokens[:3], other).greedy


def test_what_has_no_likelihood_is_refused(made: Callable[[str], Path]) -> None:
    denoiser = denoiser_of(made("dream"))
    mask = denoiser.spec.mask_id
    for prompt, target, match in (
        ([7], [], "is empty"),
        ([], [7], "nothing stands before"),
        ([7], [mask], f"token {mask} is the mask"),
        ([7] * 9999, [7], "shorten"),
    ):
        with pytest.raises(RequestError, match=match):
            log_likelihood(denoiser, prompt, target)
    chain = Chain.random(3, 3, 4)
    with pytest.raises(OptionError, match="says of no text"):
        log_likelihood(solvable_model(chain, modes=("wedlm",)).denoiser, PROMPT, TARGET)
    with pytest.raises(OptionError, match="samples=0"):
        Sampling(0)
