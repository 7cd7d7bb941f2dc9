"""Multi-turn: the next turn forwards only what is new, and says the same."""

import pytest
import torch

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.sharing import SharedModel

FIRST = [5, 9, 77, 120, 33, 60, 61]


class State:
    """Stands in for a cache."""

    def __init__(self, length: int) -> None:
        self.length = length


def one(model: SharedModel | Model, tokens: list[int], **options: object) -> Finish:
    """The answer to one request."""
    request = Request(tokens, SamplingConfig(**{"max_new_tokens": 20, **options}))
    return (model.generate if isinstance(model, SharedModel) else model.engine().generate)([request])[0]


@pytest.mark.parametrize("options", [{}, {"mode": "ar"}, {"mode": "diffusion"}, {"temperature": 0.9, "seed": 3}])
def test_the_second_turn_forwards_only_what_is_new(tiny: Model, options: dict[str, object]) -> None:
    """Same tokens as without the kept prefix, and the first pass holds the new rows only."""
    shared = SharedModel(tiny)
    first = one(shared, FIRST, **options)
    assert first.usage.cached_tokens == 0
    turn = [*FIRST, *first.tokens, 40, 41, 42]
    second, fresh = one(shared, turn, **options), one(tiny, turn, **options)
    assert second.tokens == fresh.tokens
    assert second.usage.passes == fresh.usage.passes
    assert second.usage.cached_tokens >= len(FIRST)
    assert second.usage.rows == fresh.usage.rows - second.usage.cached_tokens


def test_a_branch_of_a_conversation_reuses_what_is_common(tiny: Model) -> None:
    """Another question behind the same first turn; the kept prefix is copied, not used up."""
    shared = SharedModel(tiny)
    one(shared, FIRST)
    for branch in ([200, 201], [210, 211], [200, 201]):
        turn = [*FIRST[:5], *branch]
        answer = one(shared, turn)
        assert answer.tokens == one(tiny, turn).tokens
        assert answer.usage.cached_tokens >= 5


def test_rows_of_a_batch_start_from_kept_prefixes(tiny: Model) -> None:
    """Some continue, some are new: each equals its answer alone."""
    shared = SharedModel(tiny)
    prompts = [FIRST, [90, 91, 92], [130] * 9]
    turns = [[*prompt, *one(shared, prompt).tokens, 44] for prompt in prompts[:2]] + [prompts[2]]
    answers = shared.generate([Request(turn, SamplingConfig(max_new_tokens=20)) for turn in turns])
    assert [answer.tokens for answer in answers] == [one(tiny, turn).tokens for turn in turns]
    assert [answer.usage.cached_tokens > 0 for answer in answers] == [True, True, False]


def test_a_cancelled_row_leaves_nothing(tiny: Model) -> None:
    """Its memory is free at once."""
    shared = SharedModel(tiny)
    stream = shared.stream(Request(FIRST, SamplingConfig(max_new_tokens=20)))
    next(stream)
    stream.close()
    assert len(shared.prefixes) == 0


def test_the_least_recently_used_go_first() -> None:
    """At most as many positions as allowed; a longer prefix replaces those it contains."""
    kept = KeptPrefixes(10)
    kept.keep([1, 2, 3], State(3))
    kept.keep([1, 2, 3, 4], State(4))
    assert len(kept) == 1
    kept.keep([7, 7, 7], State(3))
    assert kept.find([1, 2, 3, 9])[1] == 3
    kept.keep([8] * 5, State(5))
    assert kept.held == 9
    assert kept.find([7, 7, 7, 7]) == (None, 0)
    assert kept.find([1, 2])[1] == 1
    kept.keep([9] * 11, State(11))
    assert kept.held == 0


def test_logits_of_an_answer(tiny: Model) -> None:
    """One per token, the stop token included; greedy tokens are their argmax, in every mode."""
    for mode in ("ar", "speculative", "diffusion", "alternating"):
        request = Request(FIRST, SamplingConfig(max_new_tokens=30, mode=mode), logits=True)
        finish = tiny.engine().generate([request])[0]
        assert finish.logits is not None
        tokens = [*finish.tokens, *([] if finish.stop_token is None else [finish.stop_token])]
        assert [int(logits.argmax()) for logits in finish.logits if logits is not None] == tokens
    assert one(tiny, FIRST).logits is None


def test_logits_of_lossless_modes_are_equal(tiny: Model) -> None:
    """What speculative decoding draws from is what ar draws from, bit for bit."""
    found = [
        tiny.engine().generate([Request(FIRST, SamplingConfig(max_new_tokens=20, mode=mode), logits=True)])[0].logits
        for mode in ("ar", "speculative")
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert all(
        left is not None and right is not None and torch.equal(left, right)
        for left, right in zip(found[0], found[1], strict=True)
    )
