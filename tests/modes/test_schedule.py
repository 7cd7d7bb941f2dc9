"""Schedules: as pure functions, each option off and on, all of them together, what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Commit
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.schedule import adaptive_length
from dllm_plugins.modes.schedule import commits_early
from dllm_plugins.modes.schedule import confident_end
from dllm_plugins.modes.schedule import delimiter_window
from dllm_plugins.modes.schedule import mean_gap
from dllm_plugins.modes.schedule import suffix_window

from ..golden.cases import CLONED
from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

PROPHET = (7.5, 5.0, 2.5)


def decode(model: Model, prompts: list[list[int]], stops: frozenset[int] = frozenset(), **options: Any) -> list[Finish]:
    """All prompts together."""
    config = SamplingConfig(**{"max_new_tokens": 16, "block_length": 4, **options})
    return model.engine().generate([Request(prompt, config, stops) for prompt in prompts])


def scripted(script: Any) -> Model:
    """A whole-canvas model that says what it is told."""
    return scripted_model(script, "scheduled", "llada", cache="none")


def test_adaptive_length() -> None:
    """A block ends with its surest delimiter, the first of equals, if that is sure enough."""
    sure = torch.tensor([0.9, 0.4, 0.8, 0.4])
    assert adaptive_length([5, 1, 6, 1], sure, {1}, 0.3) == 2
    assert adaptive_length([5, 1, 2, 1], sure, {1, 2}, 0.3) == 3
    assert adaptive_length([5, 1, 6, 1], sure, {1}, 0.4001) is None
    assert adaptive_length([5, 7, 6, 8], sure, {1}, 0.3) is None
    assert delimiter_window(256, 256) == 64
    assert delimiter_window(256, 10) == 10


def test_commits_early() -> None:
    """Prophet's thirds: the later, the smaller a gap is enough."""
    assert not commits_early(7.4, 0.1, PROPHET)
    assert commits_early(7.5, 0.1, PROPHET)
    assert commits_early(5.0, 0.33, PROPHET)
    assert not commits_early(4.9, 0.66, PROPHET)
    assert commits_early(2.5, 0.67, PROPHET)
    assert mean_gap(torch.tensor([[1.0, 4.0, 2.0], [0.0, -1.0, -3.0]])) == 1.5


def test_confident_end_and_suffix_window() -> None:
    """The first sure end of text; the nearest masks, and what is given behind the answer."""
    assert confident_end([3, 9, 9], torch.tensor([0.9, 0.5, 0.8]), {9}, 0.7) == 2
    assert confident_end([3, 9, 9], torch.tensor([0.9, 0.5, 0.6]), {9}, 0.7) is None
    assert suffix_window(6, 2, 12, 14) == [0, 1, 2, 3, 4, 5, 6, 7, 12, 13]
    assert suffix_window(6, 0, 12, 12) == [0, 1, 2, 3, 4, 5]
    assert suffix_window(11, 9, 12, 12) == list(range(12))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"steps": 8},
        {"factor": 1.5, "block_length": 7},
        {"threshold": 0.3, "temperature": 0.7, "seed": 4},
        {"approximate_cache": "dual", "threshold": 0.3},
        {"guidance": 0.5, "steps": 4, "block_length": 4},
        {"preset_options": {"late_tokens": [5], "suppress_tokens": [7]}},
    ],
)
@pytest.mark.parametrize("shifted", [False, True])
def test_without_options_it_is_llada(options: dict[str, Any], shifted: bool) -> None:
    """Same tokens, passes and rows."""
    model = random_model("llada", "scheduled", seed=1, cache="none", holds=True, shifted=shifted)
    prompts = [[1, 2, 3], [9], [4, 5, 6, 7, 8, 9]]
    for ours, theirs in zip(
        decode(model, prompts, mode="scheduled", **options),
        decode(model, prompts, mode="llada", **options),
        strict=True,
    ):
        assert ours.tokens == theirs.tokens
        assert ours.usage.passes == theirs.usage.passes
        assert ours.usage.rows == theirs.usage.rows


@pytest.mark.parametrize(
    "own",
    [
        {"delimiter_ids": [2], "delimiter_threshold": 1.0},
        {"early_commit": [1e9, 1e9, 1e9]},
        {"eos_confidence": 1.0},
        {"suffix_window": 16},
    ],
)
def test_options_that_never_apply(own: dict[str, Any]) -> None:
    """Asking for more logits, or for all masks, changes nothing."""
    model = random_model("llada", "scheduled", seed=1, cache="none")
    prompts = [[1, 2, 3], [9]]
    plain = decode(model, prompts, mode="llada", rule="quota")
    asked = decode(model, prompts, mode="scheduled", rule="quota", preset_options=own)
    assert [f.tokens for f in asked] == [f.tokens for f in plain]
    assert [f.usage.rows for f in asked] == [f.usage.rows for f in plain]


def test_a_block_ends_at_its_delimiter() -> None:
    """One token a pass, the rightmost of a block first: the first block is longer, up to the delimiter."""

    def script(_seen: dict[int, int], position: int) -> Tensor:
        return says(21 if position == 4 + 5 else position % 20, 5.0 + position / 16)

    model = scripted(script)
    own = {"delimiter_ids": [21], "delimiter_threshold": 0.5}
    plain = committed_order(model)
    assert plain[:8] == [3, 2, 1, 0, 7, 6, 5, 4]
    assert committed_order(model, preset_options=own)[:10] == [5, 4, 3, 2, 1, 0, 9, 8, 7, 6]
    assert committed_order(model, preset_options={**own, "delimiter_threshold": 0.95}) == plain
    # The window is a quarter of the answer: that of a shorter one reaches the delimiter from the second block only.
    assert committed_order(model, preset_options=own, max_new_tokens=20)[:8] == [3, 2, 1, 0, 5, 4, 9, 8]


def committed_order(model: Model, **options: Any) -> list[int]:
    """Offsets into the answer to four prompt tokens, in the order they are committed."""
    config = SamplingConfig(**{"max_new_tokens": 24, "block_length": 4, "rule": "quota", **options})
    order: list[int] = []
    final = 0
    for event in model.engine().stream(Request([1, 2, 3, 4], config, frozenset())):
        begin = 0 if isinstance(event, Finish) else final
        committed = [begin + index for index, token in enumerate(event.tokens) if token is not None]
        order += [position for position in committed if position not in order]
        final += len(event.tokens) if isinstance(event, Commit) else 0
    return order


def test_early_commit_writes_the_rest() -> None:
    """Clear from the third token on: the gaps are 9 less the place, 5 is enough in the middle third."""

    def script(seen: dict[int, int], position: int) -> Tensor:
        committed = sum(token != MASK for token in seen.values()) - 1
        return says(position % 20, 6.0 if committed >= 3 else 4.0)

    model = scripted(script)
    options: dict[str, Any] = {"max_new_tokens": 12, "rule": "quota", "mode": "scheduled"}
    slow = decode(model, [[1]], **options)[0]
    early = decode(model, [[1]], **options, preset_options={"early_commit": PROPHET})[0]
    assert early.tokens == slow.tokens
    # Three passes commit one token each; the fourth sees gaps of 6 and commits a third of the answer.
    assert (slow.usage.total_passes, early.usage.total_passes) == (12, 4)
    watched = {"early_commit": (7.5, 5.0, 2.5), "answer_region": (10, 12)}
    assert decode(model, [[1]], **options, preset_options=watched)[0].usage.total_passes == 4
    never = {"early_commit": (7.5, 7.5, 7.5)}
    assert decode(model, [[1]], **options, preset_options=never)[0].usage.total_passes == 12


def test_a_confident_end_ends_it() -> None:
    """Nothing behind it is denoised, and what precedes it is; an unsure one does not count."""

    def script(_seen: dict[int, int], position: int) -> Tensor:
        return says(EOS, 6.0) if position == 7 else says(position, 2.0)

    model, stops = scripted(script), frozenset({EOS})
    options: dict[str, Any] = {"max_new_tokens": 16, "block_length": 16, "rule": "quota", "mode": "scheduled"}
    slow = decode(model, [[1, 2]], stops, **options)[0]
    early = decode(model, [[1, 2]], stops, **options, preset_options={"eos_confidence": 0.8})[0]
    unsure = decode(model, [[1, 2]], stops, **options, preset_options={"eos_confidence": 0.99})[0]
    assert early.tokens == slow.tokens == (2, 3, 4, 5, 6)
    assert early.reason == "eos"
    assert early.usage.total_passes == 5
    assert unsure.usage.total_passes == slow.usage.total_passes > 5


def test_a_short_suffix_saves_rows() -> None:
    """Only so many masks behind the block are forwarded, at their own positions, and given text always is."""
    model = load_model(str(CLONED["llada_dense"] / "checkpoint"), mask_id=236, dtype="float32", device="cpu")
    options: dict[str, Any] = {"max_new_tokens": 16, "steps": 16, "mode": "scheduled"}
    whole = decode(model, [[5, 6, 7]], **options)[0]
    short = decode(model, [[5, 6, 7]], **options, preset_options={"suffix_window": 2})[0]
    assert whole.usage.rows == 16 * 19
    assert short.usage.rows == 4 * (9 + 13 + 17 + 19)
    given = model.engine().generate(
        [
            Request(
                [5, 6, 7],
                SamplingConfig(**options, block_length=4, preset_options={"suffix_window": 0}),
                frozenset(),
                suffix=(9, 10),
            )
        ]
    )[0]
    assert given.usage.rows == 4 * (9 + 13 + 17 + 21)
    assert len(given.tokens) == 16


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    "own",
    [
        {"delimiter_ids": [3, 4], "delimiter_threshold": 0.05, "early_commit": (2.0, 1.0, 0.5), "eos_confidence": 0.3},
        {"delimiter_ids": [3, 4], "delimiter_threshold": 0.05, "eos_confidence": 0.3, "suffix_window": 3},
    ],
)
def test_together(own: dict[str, Any], temperature: float) -> None:
    """A batch equals its rows, nothing stays open, and the length is kept or a stop id ends it."""
    model = random_model("scheduled", seed=6, cache="none")
    options: dict[str, Any] = {"threshold": 0.4, "temperature": temperature, "preset_options": own}
    options |= {"seed": 2} if temperature else {}
    prompts = [[1, 2, 3], [9], [4, 5, 6, 7], [8, 8]]
    stops = frozenset({EOS, 11, 12})
    for prompt, finish in zip(prompts, decode(model, prompts, stops, **options), strict=True):
        assert decode(model, [prompt], stops, **options)[0].tokens == finish.tokens
        assert MASK not in finish.tokens
        assert len(finish.tokens) == 16 or finish.reason == "eos"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset_options": {"delimiter_threshold": 0.5}}, "delimiter_ids"),
        ({"preset_options": {"answer_region": [0, 4]}}, "early_commit"),
        ({"preset_options": {"early_commit": PROPHET, "answer_region": [4, 4]}}, "empty"),
        ({"preset_options": {"early_commit": PROPHET, "suffix_window": 4}}, "suffix_window"),
        ({"preset_options": {"suffix_window": 4}, "guidance": 1.0}, "guidance"),
        ({"preset_options": {"suffix_window": 4}, "approximate_cache": "dual"}, "approximate_cache"),
        ({"preset_options": {"delimiter_ids": [4]}, "approximate_cache": "prefix"}, "approximate_cache"),
        ({"preset_options": {"suffix_window": -1}}, "suffix_window"),
        ({"preset_options": {"eos_confidence": 1.5}}, "eos_confidence"),
        ({"steps": 4, "threshold": 0.5}, "threshold"),
        ({"steps": 8, "preset_options": {"delimiter_ids": [4]}}, "steps=8 cannot be met with delimiter_ids"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    """Refused by name."""
    with pytest.raises(OptionError, match=words):
        decode(random_model("scheduled", cache="none", holds=True), [[1]], **options)


def test_an_end_needs_a_name() -> None:
    """Without stop ids nothing can end."""
    with pytest.raises(OptionError, match="no end of text"):
        decode(
            random_model("scheduled", cache="none", stop_ids=frozenset()), [[1]], preset_options={"eos_confidence": 1}
        )
