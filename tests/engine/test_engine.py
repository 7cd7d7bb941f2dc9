"""Invariants 2, 6, 7, 8, 9 and 11 on the tiny model."""

import random
from collections.abc import Callable
from collections.abc import Sequence

import pytest
from torch import Tensor

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Engine
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser


def requests(temperature: float) -> list[Request]:
    """Unequal prompts, modes, lengths, rules and seeds."""
    rng = random.Random(4)
    options: list[dict[str, object]] = [
        {"mode": "ar"},
        {"mode": "speculative"},
        {"mode": "speculative", "draft_length": 2},
        {"mode": "diffusion"},
        {"mode": "diffusion", "threshold": 0.05, "block_length": 12},
        {"mode": "diffusion", "steps": 3},
        {"mode": "diffusion", "factor": 1.5},
        {"mode": "diffusion", "rule": "random", "steps": 4},
    ]
    made = []
    for index in range(16):
        prompt = [rng.randrange(3, 250) for _ in range(rng.choice([1, 3, 17, 40, 130]))]
        config = SamplingConfig(
            max_new_tokens=rng.randrange(5, 40), temperature=temperature, seed=index, **options[index % 8]
        )
        made.append(Request(prompt, config))
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_alone_equals_in_a_batch(load_tiny: Callable[[str], Model], dtype: str, temperature: float) -> None:
    """Invariant 2: a row alone == the same row in any batch, in any order."""
    engine = load_tiny(dtype).engine()
    made = requests(temperature)
    alone = [engine.generate([request])[0].tokens for request in made]
    assert [found.tokens for found in engine.generate(made)] == alone
    order = random.Random(1).sample(range(len(made)), len(made))
    shuffled = engine.generate([made[index] for index in order])
    assert [found.tokens for found in shuffled] == [alone[index] for index in order]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_join_and_leave_at_any_step(tiny: Model, temperature: float) -> None:
    """Invariant 2 with continuous batching: one new row every second step, some cancelled."""
    engine = tiny.engine()
    made = requests(temperature)
    alone = [engine.generate([request])[0].tokens for request in made]
    waiting = list(enumerate(made))
    numbers: dict[int, int] = {}
    done: dict[int, tuple[int, ...]] = {}
    step = 0
    while waiting or engine.active:
        if waiting and step % 2 == 0:
            index, request = waiting.pop(0)
            numbers[engine.admit(request)] = index
        if step == 9:
            victim = engine.active[0]
            engine.cancel(victim)
            del numbers[victim]
        done |= {event.row: event.tokens for event in engine.step() if isinstance(event, Finish)}
        step += 1
    assert len(done) == len(made) - 1
    assert all(tokens == alone[numbers[row]] for row, tokens in done.items())


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_max_new_tokens_is_an_upper_bound(tiny: Model, mode: str, count: int) -> None:
    """Invariant 7: max_new_tokens=5 yields at most 5."""
    found = tiny.engine().generate([Request([9, 8, 7], SamplingConfig(mode=mode, max_new_tokens=count))])[0]
    assert found.reason in ("length", "eos")
    assert len(found.tokens) <= count


@pytest.mark.parametrize("mode", ["speculative", "diffusion", "alternating"])
def test_final_text_never_changes_and_holds_no_mask(tiny: Model, mode: str) -> None:
    """Invariant 6: commits only append, and add up to the answer; no mask id leaves the engine."""
    options = {"rule": "random", "steps": 4} if mode == "diffusion" else {}
    config = SamplingConfig(mode=mode, max_new_tokens=40, temperature=0.7, seed=3, **options)
    tokens: list[int] = []
    text = ""
    drafts = 0
    for event in tiny.engine().stream(Request([9, 8, 7], config)):
        if isinstance(event, Commit):
            tokens += event.tokens
            text += event.text
        elif isinstance(event, Draft):
            drafts += any(token is not None for token in event.tokens)
            assert all(token is None or 0 <= token < 259 for token in event.tokens)
        else:
            assert list(event.tokens) == tokens
            assert event.text == text
    assert drafts
    assert all(0 <= token < 259 for token in tokens)


def test_drafts_show_what_is_guessed(tiny: Model) -> None:
    """A pass that commits the frontier alone still said something of every open position of its canvas."""
    config, answer = SamplingConfig(mode="diffusion", max_new_tokens=24, threshold=1.0, block_length=6), 0
    for event in tiny.engine().stream(Request([9, 8, 7], config)):
        if isinstance(event, Commit):
            answer += len(event.tokens)
        elif isinstance(event, Draft):
            assert set(event.tokens) == {None}
            assert len(event.guesses) == len(event.tokens) == min(6 + 1, 24 - answer)
            # The canvas slides: what has just come into it was not looked at yet.
            unseen = 2 if answer + 7 <= 24 else 1 if answer + 6 == 24 else 0
            assert event.guesses.count(None) == event.text.count("·") <= unseen
            assert event.guesses[0] is not None


@pytest.mark.parametrize("mode", ["ar", "diffusion"])
def test_drafts_begin_behind_what_was_committed(tiny: Model, mode: str) -> None:
    """Final tokens that are held back for a stop string open the draft: nothing is skipped."""
    only = {"threshold": 1.0} if mode == "diffusion" else {}
    config = SamplingConfig(mode=mode, max_new_tokens=24, stop=("never said",), **only)
    answer = tiny.engine().generate([Request([9, 8, 7], config)])[0].tokens
    text = tiny.tokenizer.decode(answer)
    config, told, held = config.with_options(stop=(text[3:6] + "never said",)), 0, 0
    for event in tiny.engine().stream(Request([9, 8, 7], config)):
        if isinstance(event, Commit):
            told += len(event.tokens)
        elif isinstance(event, Draft):
            known = [token for token in event.tokens if token is not None]
            assert list(answer[told : told + len(known)]) == known
            held += len(known)
    assert held


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
def test_stop_string_cuts_the_text_exactly_there(tiny: Model, mode: str) -> None:
    """Invariant 8: the text ends right before the stop string, wherever it lies in the canvas."""
    engine = tiny.engine()
    config = SamplingConfig(mode=mode, max_new_tokens=48, temperature=0.9, seed=8)
    whole = engine.generate([Request([9, 8, 7], config)])[0]
    checked = 0
    for start in range(2, len(whole.text) - 3):
        stop = whole.text[start : start + 2]
        if "\ufffd" in stop:
            continue
        events = list(engine.stream(Request([9, 8, 7], config.with_options(stop=stop))))
        finish = events[-1]
        assert isinstance(finish, Finish)
        assert finish.reason == "stop"
        assert finish.text == whole.text[: whole.text.index(stop)]
        commits = [event for event in events if isinstance(event, Commit)]
        assert "".join(event.text for event in commits) == finish.text
        assert tuple(token for event in commits for token in event.tokens) == finish.tokens
        assert tiny.tokenizer.decode(finish.tokens, skip_special_tokens=True).startswith(finish.text)
        assert finish.usage.useful_tokens == len(finish.tokens) <= len(whole.tokens)
        assert finish.usage.total_passes <= whole.usage.total_passes
        checked += 1
    assert checked >= 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
def test_end_of_text_ends_the_work_in_mid_canvas(tiny: Model, mode: str) -> None:
    """EOS is not part of the answer, nothing behind it is, and no pass follows it."""
    ended = 0
    for seed in range(40):
        config = SamplingConfig(mode=mode, max_new_tokens=60, temperature=2.0, seed=seed)
        found = tiny.engine().generate([Request([9, 8, 7], config)])[0]
        assert 2 not in found.tokens
        assert found.usage.useful_tokens == len(found.tokens)
        if found.reason == "eos":
            ended += 1
            assert len(found.tokens) < 60
    assert ended


class Counter:
    """Counts the passes and rows a denoiser really forwards."""

    def __init__(self, inner: TriModeDenoiser) -> None:
        self.inner, self.spec = inner, inner.spec
        self.open_row, self.close_row, self.freeze = inner.open_row, inner.close_row, inner.freeze
        self.logits, self.draft_logits = inner.logits, inner.draft_logits
        self.hold, self.release = inner.hold, inner.release
        self.passes = self.rows = 0

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        self.passes += 1
        self.rows += sum(len(segment.tokens) for segment in segments)
        return self.inner.forward(segments)


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
def test_usage_is_honest(tiny: Model, mode: str) -> None:
    """Invariant 9: passes and rows are those the denoiser forwarded; only the answer's tokens count."""
    assert isinstance(tiny.denoiser, TriModeDenoiser)
    counter = Counter(tiny.denoiser)
    engine = tiny.engine()
    counted = Engine(counter, tiny.tokenizer, engine.modes)
    usage = counted.generate([Request([9, 8, 7], SamplingConfig(mode=mode, max_new_tokens=30))])[0].usage
    assert (usage.total_passes, usage.rows) == (counter.passes, counter.rows)
    assert usage.useful_tokens <= usage.canvas_tokens
    assert usage.tokens_per_forward == usage.useful_tokens / counter.passes
    assert usage.prompt_tokens == 3
    assert (usage.mode, usage.cache, usage.numerics) == (mode, "exact", "row-invariant")
    assert usage.as_dict()["tokens_per_forward"] == round(usage.tokens_per_forward, 4)
    assert f"{usage.useful_tokens} tokens" in usage.summary()


def test_closing_a_stream_frees_the_row_at_once(tiny: Model) -> None:
    """Invariant 11: a closed iterator leaves no row and no cache behind; others go on."""
    assert isinstance(tiny.denoiser, TriModeDenoiser)
    engine = tiny.engine()
    other = engine.admit(Request([4, 5], SamplingConfig(mode="ar", max_new_tokens=6)))
    stream = engine.stream(Request([9, 8, 7], SamplingConfig(max_new_tokens=40)))
    next(stream)
    assert tiny.denoiser.open_rows == 2
    stream.close()
    assert tiny.denoiser.open_rows == 1
    assert engine.active == (other,)
    while engine.active:
        engine.step()
    assert tiny.denoiser.open_rows == 0


def test_an_error_in_a_batch_leaves_no_row_behind(tiny: Model) -> None:
    """A refused request takes the rows admitted before it out again."""
    assert isinstance(tiny.denoiser, TriModeDenoiser)
    engine = tiny.engine()
    with pytest.raises(ValueError, match="empty"):
        engine.generate([Request([4, 5]), Request([])])
    assert engine.active == ()
    assert tiny.denoiser.open_rows == 0
