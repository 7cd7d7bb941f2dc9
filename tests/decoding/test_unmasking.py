"""A denoiser whose head goes straight to tokens decodes as one that builds logits, and builds none in vain."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.decoder.base import Unmasked
from dllm_plugins import Engine
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Predictions
from dllm_plugins.prediction import likeliest
from dllm_plugins.prediction import predict

VOCABULARY, WIDTH = 9000, 24
SPEC = ModelSpec(
    name="words without a context",
    vocabulary=VOCABULARY,
    mask_id=VOCABULARY,
    context=512,
    stop_ids=frozenset(),
    block_length=8,
    draft_length=3,
    modes=("diffusion", "speculative", "ar"),
    draft_head=False,
    cache="exact",
    numerics="approximate",
)


class Letters:
    """A tokenizer."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(chr(97 + token % 26) for token in token_ids)


class Plain:
    """Hidden states that depend on the token and its position; counts what its head is asked."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.spec = SPEC
        self.embedding, self.positions, self.weight = (
            torch.randn(size, WIDTH, generator=generator).to(dtype) for size in (VOCABULARY + 1, 512, VOCABULARY)
        )
        self.built = self.wanted = self.masks = 0
        self.rows = 0

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        self.rows += 1
        return self.rows

    def close_row(self, row: int) -> Any:
        return None

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        return [
            (self.embedding[list(segment.tokens)] + self.positions[list(segment.positions)])[list(segment.wanted)]
            for segment in segments
        ]

    def freeze(self, row: int, count: int) -> None:
        """Nothing is cached."""

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Nothing is cached."""

    def release(self, row: int) -> None:
        """Nothing is cached."""

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        self.built += 1
        self.wanted += len(hidden)
        return hidden @ self.weight.T

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        return hidden @ self.weight.T, None


class Straight(Plain):
    """The same with a head of its own."""

    def unmask(self, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None) -> Predictions | None:
        if any((draw.top_p or 1.0) < 1.0 or draw.top_k for draw in draws):
            return None
        said = predict(hidden @ self.weight.T, draws)
        self.masks += int((said.token == self.spec.mask_id).sum())
        return Unmasked(said.token, said.probability, said.entropy, said.margin)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("ar", {}),
        ("speculative", {}),
        ("diffusion", {}),
        ("diffusion", {"threshold": 0.2, "block_length": 5}),
        ("diffusion", {"rule": "entropy_bound", "rule_options": {"gamma": 2.0}}),
        ("diffusion", {"rule": "margin", "steps": 3}),
    ],
)
def test_answers_are_the_same(mode: str, options: dict[str, Any], temperature: float) -> None:
    """Token by token and pass by pass, in a batch with others; logits are never built."""
    config = SamplingConfig(mode=mode, max_new_tokens=30, temperature=temperature, seed=3, **options)
    requests = [Request(prompt, config) for prompt in ([5, 6, 7], [900], [31, 8000])]
    found = []
    for denoiser in (Plain(), Straight()):
        done = Engine(denoiser, Letters(), plugins.modes()).generate(requests)
        found.append([(finish.tokens, finish.usage.passes) for finish in done])
    assert found[0] == found[1]
    assert denoiser.built == 0


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    ("options", "built"),
    [
        ({}, False),
        ({"rule": "entropy_bound", "rule_options": {"gamma": 2.0}}, False),
        ({"rule": "margin", "steps": 3}, False),
        ({"rule": "klass"}, True),
        ({"rule": "credit"}, True),
        ({"revoke": "doubt"}, True),
    ],
)
def test_cached_blocks_ask_without_logits(options: dict[str, Any], built: bool, temperature: float) -> None:
    """Mode `blocks` with rules that need no logits, with those that do, and where the mask id comes first."""
    for masked in (False, True):
        found = []
        for denoiser in (Plain(), Straight()):
            # A mask id among the vocabulary, as the checkpoints of this mode have it.
            denoiser.spec = replace(SPEC, mask_id=40, modes=("diffusion",), samplers={"diffusion": "blocks"})
            if masked:
                denoiser.weight[40] = denoiser.weight.mean(0) * 3 + denoiser.weight[17]
            config = SamplingConfig(max_new_tokens=30, temperature=temperature, seed=3, **options)
            requests = [Request(prompt, config) for prompt in ([5, 6, 7], [900])]
            done = Engine(denoiser, Letters(), plugins.modes()).generate(requests)
            found.append([(finish.tokens, finish.usage.passes) for finish in done])
            assert all(40 not in tokens for tokens, _ in found[-1])
        assert found[0] == found[1]
        # The text before the newest block wants no logits, but its head is asked about none of its positions.
        assert (denoiser.wanted > 0) == (built or (masked and denoiser.masks > 0))


@pytest.mark.parametrize(
    ("options", "logits"),
    [
        ({"mode": "ar"}, True),
        ({"mode": "diffusion"}, True),
        ({"mode": "ar", "temperature": 0.7, "top_p": 0.9}, False),
        ({"mode": "diffusion", "temperature": 0.7, "top_k": 5}, False),
        ({"mode": "diffusion", "rule": "klass"}, False),
        ({"mode": "diffusion", "rule": "credit"}, False),
    ],
)
def test_logits_are_built_where_they_are_wanted(options: dict[str, Any], logits: bool) -> None:
    """For a request that asks, for top_p, and for rules that read or change them; a neighbour is not drawn in."""
    config = SamplingConfig(max_new_tokens=12, seed=3, **options)
    wanting = Request([5, 6, 7], config, logits=logits)
    plain = Engine(Plain(), Letters(), plugins.modes()).generate([wanting])[0]
    denoiser = Straight()
    engine = Engine(denoiser, Letters(), plugins.modes())
    found, other = engine.generate([wanting, Request([900], SamplingConfig(mode="ar", max_new_tokens=12))])
    assert denoiser.built > 0
    assert found.tokens == plain.tokens
    assert (found.logits is not None) == logits
    assert engine.generate([Request([900], SamplingConfig(mode="ar", max_new_tokens=12))])[0].tokens == other.tokens


@pytest.mark.parametrize("never", [0, 1, 3])
def test_what_is_never_drawn_leaves_its_share_to_all(never: int) -> None:
    """Others are drawn as often as without it, and by the same numbers as where it could be drawn."""
    logits, count = torch.tensor([1.0, 2.0, 0.5, 1.5]), 4000
    draws = [Draw(0.7, uniform=(number + 0.5) / count) for number in range(count)]
    rows = logits.expand(count, -1)
    found, among_all = predict(rows, draws, never=never).token, predict(rows, draws).token
    others = torch.arange(4) != never
    expected = torch.softmax(logits.double().where(others, -torch.inf) / 0.7, -1)
    assert (found.bincount(minlength=4) / count - expected).abs().max() < 0.001
    assert torch.equal(found[among_all != never], among_all[among_all != never])
    # Divided by so little, logits are infinite; of the two that are plus infinity the other is left.
    cold = predict(rows[:9] - 1.2, [Draw(1e-320, uniform=0.3)] * 9, never=never).token
    assert cold.tolist() == [int(logits.where(others, -torch.inf).argmax())] * 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("vocabulary", [1, 511, 1024, 1025, 5000, 49152])
def test_the_likeliest_is_the_first_of_the_largest(dtype: torch.dtype, vocabulary: int) -> None:
    """As argmax, with many equal logits and with impossible ones."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, vocabulary, generator=generator).mul(4).round().to(dtype)
    logits[1] = -torch.inf
    logits[2] = 0.0
    logits[3, : vocabulary // 2] = -torch.inf
    assert likeliest(logits).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_entropy_and_margin_of_logits(dtype: torch.dtype) -> None:
    """Against the textbook in float64, impossible ids and certain tokens included."""
    logits = torch.randn(8, 5000, generator=torch.Generator().manual_seed(3)).mul(3).to(dtype)
    logits[1, 7:] = -torch.inf
    logits[2] = -torch.inf
    logits[2, 5] = 1.0
    logits[3, 9] = 80.0
    logits[4] = 0.0
    found, exact = predict(logits, [GREEDY] * 8), torch.softmax(logits.double(), -1)
    best = exact.topk(2).values
    torch.testing.assert_close(found.entropy.double(), torch.special.entr(exact).sum(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.margin.double(), best[:, 0] - best[:, 1], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.probability.double(), best[:, 0], rtol=0, atol=1e-6)
