"""The two models of a pair take turns: by request, and within one answer, equal to asking each by itself."""

from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PassError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.pairs.bridge import TwoTokenizers
from dllm_plugins.pairs.denoiser import PairDenoiser
from dllm_plugins.pairs.model import PairModel
from dllm_plugins.request import AnswerPart
from dllm_plugins.sharing import SharedModel
from dllm_plugins.template import Gap
from dllm_plugins.template import Template

from ..modes.tiny_models import MASK
from ..modes.tiny_models import VOCABULARY
from ..modes.tiny_models import random_model
from .paired import paired

NEVER: frozenset[int] = frozenset()
PROMPTS = ([5], [7, 8, 9], [*range(10, 27)])
#: By attention, a mode of the family and what else its spec says.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "block-causal": ("blocks", {"attention": "block-causal"}),
    "bidirectional": ("llada", {"attention": "bidirectional", "cache": "none", "holds": True}),
}


@pytest.fixture(scope="module")
def target() -> Model:
    return random_model("ar", seed=1, name="left to right", attention="causal")


@pytest.fixture(scope="module", params=OTHERS)
def other(request: pytest.FixtureRequest) -> Model:
    mode, fields = OTHERS[request.param]
    return random_model(mode, seed=2, name="any order", **fields)


@pytest.fixture(scope="module")
def pair(target: Model, other: Model) -> PairModel:
    return paired(target, other)


def turns(pair: Model, *counts: int) -> list[tuple[str, int]]:
    """A plan of `ar` and the other model's mode."""
    return [("ar", counts[0]), (pair.denoiser.spec.modes[3], counts[1])]


def asked(prompt: list[int], plan: Any, **options: Any) -> Request:
    config = SamplingConfig(mode="alternating", max_new_tokens=30, preset_options={"plan": plan}, **options)
    return Request(prompt, config, stop_ids=NEVER)


def by_hand(pair: PairModel, target: Model, prompt: list[int], plan: Any, **options: Any) -> tuple[int, ...]:
    """Each model asked by itself to go on from what stands there."""
    said: list[int] = []
    places = cycle(plan)
    while len(said) < 30:
        mode, count = next(places)
        config = SamplingConfig(mode=mode, max_new_tokens=min(count, 30 - len(said)), **options)
        model = target if mode == "ar" else pair.diffusion
        said += model.engine().generate([Request([*prompt, *said], config, stop_ids=NEVER)])[0].tokens
    return tuple(said)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3}], ids=["greedy", "sampled"])
def test_within_one_answer(pair: PairModel, target: Model, sampling: dict[str, Any]) -> None:
    """Rows of unlike prompts and turns together; the statistics say which model wrote what."""
    plans = [turns(pair, 5, 8), turns(pair, 3, 4), turns(pair, 4, 7)[::-1]]
    requests = [asked(prompt, plan, **sampling) for prompt, plan in zip(PROMPTS, plans, strict=True)]
    found = pair.engine().generate(requests)
    for prompt, plan, one in zip(PROMPTS, plans, found, strict=True):
        assert one.tokens == by_hand(pair, target, prompt, plan, **sampling)
        told = one.usage.stretches or ()
        assert {part.model for part in told} == {"left to right", "any order"}
        assert (told[0].mode, told[0].end) == plan[0]
        assert one.usage.passes["guest"] > 4
        assert one.usage.total_passes == one.usage.passes["guest"] + sum(
            count for kind, count in one.usage.passes.items() if kind != "guest"
        )


def test_whole_blocks_are_kept(target: Model) -> None:
    """A block-causal guest reads what is new since its last turn, behind whole blocks: fewer rows, the same tokens."""
    pair = paired(target, random_model("blocks", seed=2, name="any order", attention="block-causal"))
    plan = [("ar", 2), ("blocks", 5)]
    [kept] = pair.engine().generate([asked(PROMPTS[2], plan)])
    assert isinstance(pair.denoiser, PairDenoiser)
    engine = pair.denoiser.guests._engine
    assert engine.prefixes is not None
    found = [kept.usage.rows]
    for unit in (True, False):
        engine.prefixes.clear()
        engine.prefixes.blocks = unit
        [again] = pair.engine().generate([asked(PROMPTS[2], plan)])
        assert again.tokens == kept.tokens
        found.append(again.usage.rows)
    assert found[0] == found[1]
    assert found[2] - found[1] >= 48


def test_the_next_turn_of_a_chat(target: Model) -> None:
    """Each model finds the prefix of its own answers, the block-causal one whole blocks of it."""
    pair = paired(target, random_model("blocks", seed=2, name="any order", attention="block-causal"))
    shared = SharedModel(pair)
    for mode, least in (("ar", 25), ("blocks", 24)):
        config = SamplingConfig(mode=mode, max_new_tokens=11)
        [first] = shared.generate([Request(PROMPTS[2], config, stop_ids=NEVER)])
        longer = Request([*PROMPTS[2], *first.tokens, 3], config, stop_ids=NEVER)
        [second] = shared.generate([longer])
        assert second.usage.cached_tokens >= least
        assert second.tokens == pair.engine().generate([longer])[0].tokens


def test_what_the_other_cannot_read_is_no_turn(other: Model) -> None:
    """The mask of the other model, here an ordinary token: the first one goes on, and the statistics say why."""
    target = random_model("ar", seed=1, name="left to right", mask_id=VOCABULARY, attention="causal")
    pair = paired(target, other)
    [found] = pair.engine().generate([asked([5], turns(pair, 6, 8))])
    [plain] = target.engine().generate([Request([5], SamplingConfig(mode="ar", max_new_tokens=30), stop_ids=NEVER)])
    assert MASK in plain.tokens[:6]
    assert found.tokens == plain.tokens
    told = found.usage.stretches or ()
    assert {part.mode for part in told} == {"ar"}
    assert "holds the mask id 31" in told[1].why


def test_by_request(pair: PairModel, target: Model, other: Model) -> None:
    """Both models answer in one batch; each text is that of the model alone."""
    mode = other.denoiser.spec.modes[0]
    configs = [SamplingConfig(mode=name, max_new_tokens=12) for name in (mode, "ar", "pair", mode)]
    requests = [Request([5, 6, number], config, stop_ids=NEVER) for number, config in enumerate(configs)]
    found = pair.engine().generate(requests)
    alone = [other, target, target, other]
    for request, one, model in zip(requests, found, alone, strict=True):
        config = request.config.with_options(mode="ar" if model is target else mode)
        [expected] = model.engine().generate([Request(request.tokens, config, stop_ids=NEVER)])
        assert one.tokens == expected.tokens
        assert one.usage.model == model.denoiser.spec.name


def test_threads_and_streams(pair: PairModel) -> None:
    """Ten at once, by request and within: the same as alone; a stream's commits never change."""
    shared, plan = SharedModel(pair), turns(pair, 4, 6)
    modes = [pair.denoiser.spec.modes[3], "pair"]
    requests = [asked([7, number], plan, temperature=0.8, seed=number) for number in range(6)]
    requests += [
        Request([9, number], SamplingConfig(mode=modes[number % 2], max_new_tokens=9), stop_ids=NEVER)
        for number in range(4)
    ]
    expected = [pair.engine().generate([one])[0].tokens for one in requests]

    def streamed(request: Request) -> tuple[int, ...]:
        events = list(shared.stream(request))
        assert any(isinstance(event, Draft) for event in events)
        assert isinstance(events[-1], Finish)
        said = tuple(token for event in events if isinstance(event, Commit) for token in event.tokens)
        assert said == events[-1].tokens
        return said

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(streamed, requests)) == expected


def test_a_row_that_fails_or_leaves_takes_nobody_along(pair: PairModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream closed amid a stretch leaves no row behind; what one guest raises ends its row alone."""
    assert isinstance(pair.denoiser, PairDenoiser)
    engine, plan = pair.engine(), turns(pair, 2, 20)
    events = engine.stream(asked([5], plan))
    while pair.denoiser.guests.active == ():
        next(events)
    events.close()
    assert pair.denoiser.guests.active == ()
    good = [("ar", 40)]
    with pytest.raises(PassError):
        bad = asked([5], plan)
        prepare = pair.denoiser.guests._engine.prepare

        def failing(request: Request) -> Any:
            if request.tokens[0] == 5:
                raise PassError("broken on purpose")
            return prepare(request)

        monkeypatch.setattr(pair.denoiser.guests._engine, "prepare", failing)
        engine.generate([bad, asked([6], good)])
    numbers = [engine.admit(asked([5], plan)), engine.admit(asked([6], plan))]
    ended = [event for _ in range(60) if engine.active for event in engine.step()]
    assert [event.row for event in ended if isinstance(event, Finish)] == [numbers[1]]


@pytest.fixture(scope="module")
def loaded(tiny_folder: Any, drafter_folder: Any, foreign_folder: Any) -> dict[str, Model]:
    """Pairs of files, with one tokenizer and with two."""
    folders = {"one": drafter_folder, "two": foreign_folder}
    return {
        name: load_model(pair={"ar": str(tiny_folder), "diffusion": str(folder)}, dtype="float32", device="cpu")
        for name, folder in folders.items()
    }


def other_mode(model: Model) -> str:
    return next(iter(model.denoiser.spec.others))


def test_two_tokenizers_by_hand(loaded: dict[str, Model], tiny: Model) -> None:
    """Each model goes on from the text, in its own tokens; what one says is cut into the other's."""
    pair = loaded["two"]
    assert isinstance(pair, PairModel)
    bridge, mode = pair.bridge, other_mode(pair)
    assert isinstance(bridge, TwoTokenizers)
    prompt = pair.encode_text("how are you?")
    plan = [("ar", 6), (mode, 5)]
    held = Regex("[a-z ]{38}")
    config = SamplingConfig(mode="alternating", max_new_tokens=40, constraint=held, preset_options={"plan": plan})
    [found] = pair.engine().generate([Request(prompt, config, stop_ids=NEVER | {2})])
    assert {part.mode for part in found.usage.stretches or ()} == {"ar", mode}
    begin = next(part for part in found.usage.stretches or () if part.mode == mode)
    before = [*prompt, *found.tokens[: begin.begin]]
    over, start = bridge.over(before), bridge.over(prompt)
    assert over is not None
    assert start is not None
    asked = SamplingConfig(mode=mode, max_new_tokens=5, constraint=held)
    part = AnswerPart(len(over) - len(start), 40 - begin.begin - 5)
    [told] = pair.diffusion.engine().generate([Request(over, asked, part=part)])
    assert len(told.text) >= 5
    assert tiny.tokenizer.decode(found.tokens[begin.begin : begin.end]) == told.text


@pytest.mark.parametrize("tokenizers", ["one", "two"])
def test_constraints_and_stop_strings(loaded: dict[str, Model], tokenizers: str) -> None:
    """Held across turns and tokenizers, on both sides; stopped where the text says."""
    pair = loaded[tokenizers]
    plan = [("ar", 4), (other_mode(pair), 6)]
    config = SamplingConfig(
        mode="alternating", max_new_tokens=40, constraint=Regex("([a-c]{3}-){6}end"), preset_options={"plan": plan}
    )
    [found] = pair.engine().generate([pair.text_request("how are you?", config)])
    assert (found.reason, len(found.text), found.text[-4:]) == ("eos", 27, "-end")
    assert [part.mode for part in found.usage.stretches or ()][:2] == [mode for mode, _ in plan]
    stop = found.text[6:11]
    [cut] = pair.engine().generate([pair.text_request("how are you?", config.with_options(stop=stop))])
    assert (cut.reason, cut.text) == ("stop", found.text[: found.text.index(stop)])


@pytest.mark.parametrize("tokenizers", ["one", "two"])
def test_the_answering_models_own_chat(loaded: dict[str, Model], tokenizers: str) -> None:
    """A request in a mode of the other model is the very request that this is asked by itself."""
    pair = loaded[tokenizers]
    assert isinstance(pair, PairModel)
    config = SamplingConfig(mode=other_mode(pair), max_new_tokens=9)
    chats = pair.diffusion.chats
    made = [pair.text_request("the sky", config)]
    own = [pair.diffusion.text_request("the sky", config)]
    if chats:
        made.append(pair.chat_request([{"role": "user", "content": "how?"}], config))
        own.append(pair.diffusion.chat_request([{"role": "user", "content": "how?"}], config))
    found, expected = pair.engine().generate(made), pair.diffusion.engine().generate(own)
    assert [one.text for one in found] == [one.text for one in expected]
    assert {one.usage.model for one in found} == {pair.diffusion.name}


def test_rules_choose_the_model(loaded: dict[str, Model], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps and puzzles go to the model that denoises, the rest to the other, unless a table of the pair says more."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path))
    monkeypatch.setenv("DLLM_CONFIG", str(tmp_path))
    pair = loaded["one"]
    engine, config = pair.engine(), SamplingConfig(mode="auto", max_new_tokens=10)
    gaps = pair.fill_request(Template("ab", Gap(tokens=1), "c"), mode="auto", block_length=16)
    requests = [pair.text_request("ab", config), gaps, pair.text_request("a sudoku puzzle", config)]

    def ran() -> list[str | None]:
        told = [engine.router.explain(request, 1) for request in requests]
        found = [engine.generate([request])[0] for request in requests]
        assert [one.usage.route for one in found] == [str(route) for route in told]
        assert [one.usage.mode for one in found] == [route.mode for route in told]
        assert all(f"{one.usage.model} answers" in (one.usage.route or "") for one in found)
        return [one.usage.model for one in found]

    spec = pair.denoiser.spec
    other = spec.others[other_mode(pair)].name
    assert ran() == [spec.target, other, other]
    name = spec.name.replace('"', "")
    (tmp_path / "routes.toml").write_text(f'[models."{name}"]\nopen = "other"\ngaps = "{other_mode(pair)}"\n')
    assert ran() == [other, other, other]


def test_what_goes_by_ids_is_refused(loaded: dict[str, Model]) -> None:
    pair = loaded["two"]
    mode = other_mode(pair)
    for options in ({"logprobs": 1}, {"bad_words": [[3, 4]]}):
        with pytest.raises(OptionError, match=r"go by ids, and .* has others than the model that it is paired with"):
            pair.engine().admit(pair.text_request("ab", SamplingConfig(mode=mode, **options)))
    with pytest.raises(OptionError, match=r"bad_words of token ids go by ids"):
        pair.engine().admit(pair.text_request("ab", SamplingConfig(mode="alternating", bad_words=[[3, 4]])))
    with pytest.raises(OptionError, match=r"unknown mode 'telepathy'; modes of .*: pair, ar, alternating, diffusion"):
        pair.engine().admit(pair.text_request("ab", SamplingConfig(mode="telepathy")))
