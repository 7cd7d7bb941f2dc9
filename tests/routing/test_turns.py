"""Modes that take turns in an answer: nothing of it shows but in the statistics."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.engine import turns
from dllm_plugins.events import Commit
from dllm_plugins.routing.bandit import Pool
from dllm_plugins.routing.bandit import Situation
from dllm_plugins.sharing import SharedModel


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another mode every two tokens, as often as there is time for it."""

    def next_one(self: Situation, modes: Sequence[str], wider: Sequence[Pool] = ()) -> tuple[str, str]:
        return modes[self.asked % len(modes)], "its turn"

    monkeypatch.setattr(turns, "PIECE", 2)
    monkeypatch.setattr(Situation, "choose", next_one)


def ask(model: Model, mode: str, number: int = 0, **options: Any) -> Request:
    """One of several requests."""
    return Request([5, 9, 20 + number, 77, 3], SamplingConfig(mode=mode, **{"max_new_tokens": 24, **options}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.9, "seed": 4, "logprobs": 2},
        {"constraint": Regex("(abc[a-z]{2}){4}")},
        {"stop": ("e",), "repetition_penalty": 1.3},
    ],
    ids=["greedy", "sampled", "constraint", "stop"],
)
@pytest.mark.usefixtures("eager")
def test_answers_are_those_of_either_mode(tiny: Model, options: dict[str, Any]) -> None:
    """Tokens, text and probabilities; the statistics count what was forwarded in both."""
    [plain] = tiny.engine().generate([ask(tiny, "ar", **options)])
    *events, mixed = tiny.engine().stream(ask(tiny, "auto", **options))
    assert isinstance(mixed, Finish)
    assert (mixed.tokens, mixed.text, mixed.reason) == (plain.tokens, plain.text, plain.reason)
    assert mixed.logprobs == plain.logprobs
    assert "".join(event.text for event in events if isinstance(event, Commit)) == plain.text
    assert mixed.usage.passes.get("prefill") == 1
    if len(mixed.tokens) >= 12:
        route = mixed.usage.route or ""
        assert route.count("on ar: its turn") >= 1
        assert route.count("on speculative: its turn") >= 1
        assert {"predict", "verify"} <= set(mixed.usage.passes)
        parts = mixed.usage.stretches or ()
        assert (parts[0].begin, parts[-1].end) == (0, len(mixed.tokens))
        assert all(one.end == other.begin and one.mode != other.mode for one, other in pairwise(parts))


@pytest.mark.usefixtures("eager")
def test_in_company_and_on_kept_prefixes(tiny: Model) -> None:
    """Rows take turns by themselves; what they leave behind serves the next turn of a chat."""
    shared = SharedModel(tiny)
    found = shared.generate([ask(tiny, "auto", number) for number in range(3)])
    for number, finish in enumerate(found):
        assert finish.tokens == tiny.engine().generate([ask(tiny, "ar", number)])[0].tokens
    longer = [5, 9, 20, 77, 3, *found[0].tokens, 40, 41]
    request = Request(longer, SamplingConfig(mode="auto", max_new_tokens=12))
    [again] = shared.generate([request])
    assert again.usage.cached_tokens > 5
    plain = Request(longer, SamplingConfig(mode="ar", max_new_tokens=12))
    assert again.tokens == tiny.engine().generate([plain])[0].tokens


@pytest.mark.usefixtures("eager")
def test_drafts_are_counted_where_they_are_forwarded(tiny: Model) -> None:
    """Open rows of a pass that another mode's took the place of are none."""
    [finish] = tiny.engine().generate([ask(tiny, "auto", draft_length=None)])
    drafts, passes = finish.usage.drafts, finish.usage.passes
    assert drafts is not None
    verified = sum(count for name, count in drafts.items() if name.endswith("verified"))
    # The prompt, a token a pass; what was final and not frozen when the mode changed comes on top.
    least = 4 + sum(passes.values()) + verified + drafts["open_rows"]
    assert least <= finish.usage.rows <= least + len(finish.tokens)


def test_a_piece_is_long_enough_to_tell(tiny: Model) -> None:
    """Both modes are tried in the first answer, and nothing changes near its end."""
    [finish] = tiny.engine().generate([ask(tiny, "auto", max_new_tokens=60)])
    [plain] = tiny.engine().generate([ask(tiny, "ar", max_new_tokens=60)])
    assert finish.tokens == plain.tokens
    route = finish.usage.route or ""
    assert finish.usage.mode == "speculative"
    if len(finish.tokens) >= 40:
        assert "; from token" in route
