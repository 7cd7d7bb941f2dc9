"""Mode `repair`: what is looked at, what is reopened, and what stays."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Commit
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.modes import repair
from dllm_plugins.modes.infilling import weighed
from dllm_plugins.modes.looking import IN_VIEW
from dllm_plugins.modes.looking import BesideClean
from dllm_plugins.modes.repair import doubtful

from .tiny_models import random_model

PROMPT = [5, 6, 7, 8]
#: Much is doubtful, and much of it is reopened.
DOUBTING: dict[str, Any] = {"threshold": 0.9, "preset_options": {"rounds": 3, "share": 0.5}}


def answered(model: Model, mode: str = "repair", prompt: Sequence[int] = PROMPT, **options: Any) -> Finish:
    config = SamplingConfig(**{"mode": mode, "max_new_tokens": 20, **options})
    return model.engine().generate([Request(list(prompt), config)])[0]


@pytest.fixture(scope="module")
def nemotron() -> Model:
    """Random weights that write causally and see a block both ways."""
    modes = ("nemotron", "nemotron_ar", "nemotron_repair")
    return random_model(*modes, attention="causal context, bidirectional block")


def plain_look(model: Model, tokens: Sequence[int], position: int, stop: int) -> Tensor:
    """What is said of one position with itself left out, in a pass of its own over the whole text; logits [1, V]."""
    denoiser, mask = model.denoiser, model.denoiser.spec.mask_id
    row = denoiser.open_row()
    behind = list(range(position + 1, min(stop, position + 1 + IN_VIEW)))
    before = ((0, position - 1),) if position > 1 else ()
    segments = [Segment(row, tokens[:position], range(position), wanted=[position - 1])]
    if behind:
        sees = (*before, (1, len(behind)))
        segments += [
            Segment(row, [tokens[place] for place in behind], behind, behind=((0, position),)),
            Segment(row, [mask], [position - 1], noisy=True, behind=sees, wanted=[0]),
            Segment(row, [mask], [position - 1], noisy=True, behind=before, wanted=[0]),
        ]
    clean, *others = denoiser.forward(segments)
    denoiser.close_row(row)
    logits, opened = denoiser.logits(clean), others[1:]
    if not opened:
        return logits.float()
    left = torch.tensor([[tokens[position - 1], tokens[position - 2]]])
    return weighed(logits, *(denoiser.logits(hidden, left) for hidden in opened)).float()


def test_what_is_said_with_a_token_left_out(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many positions in a pass over the cached prefix give what one gives in a pass of its own."""
    found: list[tuple[list[int], range, list[int], Tensor]] = []
    look = BesideClean.look

    def kept(self: BesideClean, block: range, positions: Sequence[int], kind: str) -> Any:
        logits = yield from look(self, block, positions, kind)
        found.append((list(self.canvas.tokens), block, list(positions), logits))
        return logits

    monkeypatch.setattr(BesideClean, "look", kept)
    answered(tiny, prompt=tiny.encode_text("once upon"), block_length=9, **DOUBTING)
    whole = [one for one in found if len(one[2]) > 1]
    assert len(whole) > 2
    for tokens, block, positions, logits in whole:
        for position, said in zip(positions, logits, strict=True):
            expected = plain_look(tiny, tokens, position, block.stop)[0]
            assert torch.equal(expected.isinf(), said.isinf())
            assert torch.allclose(expected.nan_to_num(neginf=0), said.nan_to_num(neginf=0), atol=1e-4)


def test_nothing_doubtful_is_the_text_of_ar(tiny: Model, nemotron: Model) -> None:
    """Greedy and sampled, in blocks of any length."""
    prompt = tiny.encode_text("once upon")
    chosen: list[dict[str, Any]] = [{}, {"temperature": 1.0, "seed": 3}]
    for options in chosen:
        for length in (4, 7, 32):
            found = answered(tiny, prompt=prompt, threshold=1e-12, block_length=length, **options)
            if found.usage.repairs is not None and not found.usage.repairs.reopened:
                assert found.tokens == answered(tiny, "ar", prompt=prompt, **options).tokens
            own = answered(nemotron, "nemotron_repair", threshold=1e-12, block_length=length, **options)
            assert own.tokens == answered(nemotron, "nemotron_ar", **options).tokens
            assert own.usage.repairs is not None
            assert own.usage.repairs.looked == len(own.tokens)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}])
def test_changes_are_told(tiny: Model, nemotron: Model, options: dict[str, Any]) -> None:
    """Each with its place and both tokens; as long as before; the same again, and streamed once and for all."""
    for model, mode, plain in ((tiny, "repair", "ar"), (nemotron, "nemotron_repair", "nemotron_ar")):
        # In one block nothing is written behind what was changed.
        whole = {**DOUBTING, "block_length": 32, **options}
        first, found = answered(model, plain, **options), answered(model, mode, **whole)
        repairs = found.usage.repairs
        assert repairs is not None
        assert repairs.rounds
        changed = list(first.tokens)
        for one in repairs.changed:
            assert changed[one.position] == one.old != one.new
            changed[one.position] = one.new
        assert changed == list(found.tokens)
        assert answered(model, mode, **whole).tokens == found.tokens
        streamed: list[int] = []
        config = SamplingConfig(mode=mode, max_new_tokens=20, **{**whole, "block_length": 6})
        for event in model.engine().stream(Request(PROMPT, config)):
            if isinstance(event, Commit):
                streamed += event.tokens
            elif isinstance(event, Finish):
                assert tuple(streamed) == event.tokens


def test_company_changes_nothing(tiny: Model) -> None:
    """Rows of unequal lengths and modes share passes."""
    texts = ("once", "once upon a time", "why?")
    requests = [
        Request(tiny.encode_text(text), SamplingConfig(mode=mode, max_new_tokens=16, block_length=length, **DOUBTING))
        for text, mode, length in zip(texts, ("repair", "repair", "repair"), (5, 8, 32), strict=True)
    ]
    together = tiny.engine().generate(requests)
    for request, finish in zip(requests, together, strict=True):
        [alone] = tiny.engine().generate([request])
        assert alone.tokens == finish.tokens
        assert alone.usage.repairs == finish.usage.repairs


def test_constraints_and_stop_strings_hold(tiny: Model) -> None:
    """What a form asks for is there after repair; a stop string ends the answer where it was written."""
    prompt = tiny.encode_text("once upon")
    found = answered(tiny, prompt=prompt, constraint=Regex("[a-z]{6}-[0-9]{4}"), block_length=5, **DOUBTING)
    assert re.fullmatch("[a-z]{6}-[0-9]{4}", found.text)
    assert found.usage.repairs is not None
    assert found.usage.repairs.reopened
    plain = answered(tiny, prompt=prompt, constraint=Regex("[a-z]{12}"))
    stop = plain.text[6:8]
    ended = answered(tiny, prompt=prompt, constraint=None, stop=(stop,), **DOUBTING)
    assert stop not in ended.text


def test_a_round_that_makes_nothing_better_is_taken_back(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was said of the tokens, and nothing is told as changed."""
    monkeypatch.setattr(repair, "score", lambda _probability: 0.0)
    prompt = tiny.encode_text("once upon")
    found = answered(tiny, prompt=prompt, logprobs=0, **DOUBTING)
    first = answered(tiny, "ar", prompt=prompt, logprobs=0)
    assert found.tokens == first.tokens
    assert found.logprobs == first.logprobs
    assert found.usage.repairs is not None
    assert found.usage.repairs.undone == found.usage.repairs.rounds > 0
    assert not found.usage.repairs.changed


def test_the_next_turn_begins_with_what_was_cached(tiny: Model) -> None:
    """What is taken back is in no kept prefix."""
    engine = tiny.engine(KeptPrefixes(tiny.denoiser.spec.context))
    config = SamplingConfig(mode="repair", max_new_tokens=12, block_length=4, **DOUBTING)
    prompt = tiny.encode_text("once upon a time")
    [first] = engine.generate([Request(prompt, config)])
    longer = [*prompt, *first.tokens, *tiny.encode_text("why?")]
    [again] = engine.generate([Request(longer, config)])
    assert again.usage.cached_tokens > 0
    [alone] = tiny.engine().generate([Request(longer, config)])
    assert again.tokens == alone.tokens


def test_who_is_doubtful() -> None:
    """The least probable first, no more than a share of all, one at least."""
    probability = torch.tensor([0.5, 0.01, 0.9, 0.02, 0.03, 0.04], dtype=torch.float64)
    assert doubtful(probability, 0.05, 1.0) == [1, 3, 4, 5]
    assert doubtful(probability, 0.05, 0.34) == [1, 3]
    assert doubtful(probability, 0.05, 0.01) == [1]
    assert doubtful(probability, 0.001, 1.0) == []


def test_the_shortest_texts(tiny: Model, nemotron: Model) -> None:
    """A prompt of one token, an answer of one, and one token left of a block."""
    for model, mode in ((tiny, "repair"), (nemotron, "nemotron_repair")):
        for length in (1, 5):
            found = answered(model, mode, prompt=[6], max_new_tokens=length, block_length=4, **DOUBTING)
            assert len(found.tokens) <= length
            assert found.usage.repairs is not None
            assert found.usage.repairs.looked >= len(found.tokens)
