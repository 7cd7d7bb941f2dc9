"""Mode `auto` on the tiny model: the same text whatever was measured, explained before it runs."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.routing.bandit import Pool
from dllm_plugins.routing.bandit import Situation
from dllm_plugins.routing.kept import book
from dllm_plugins.sharing import SharedModel
from dllm_plugins.template import Gap

from ..modes.tiny_models import random_model
from ..modes.tiny_models import scripted_model


def prompt(number: int) -> list[int]:
    """One of many."""
    return [5, 9, 20 + number, 77, 3 + number % 7]


def auto(number: int, **options: Any) -> Request:
    """A request that leaves the choice to the router."""
    return Request(prompt(number), SamplingConfig(**{"mode": "auto", "max_new_tokens": 20, **options}))


def plain(tiny: Model, number: int, **options: Any) -> Finish:
    """The same in the base model's own mode."""
    config = SamplingConfig(**{"max_new_tokens": 20, **options, "mode": "ar"})
    return tiny.engine().generate([Request(prompt(number), config)])[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.8, "seed": 4}, {"constraint": Regex("[a-z]{12}")}, {"stop": ("e",)}],
    ids=["greedy", "sampled", "constraint", "stop"],
)
def test_the_explanation_is_what_runs_and_no_choice_shows(tiny: Model, options: dict[str, Any]) -> None:
    """Both modes take part, and every answer is that of `ar`."""
    engine, seen = tiny.engine(), set()
    for number in range(4):
        request = auto(number, **options)
        told = engine.router.explain(request, 1)
        [finish] = engine.generate([request])
        assert finish.usage.route == str(told)
        assert finish.usage.mode == told.mode
        assert finish.usage.as_dict()["route"] == str(told)
        seen.add(told.mode)
        expected = plain(tiny, number, **options)
        assert (finish.tokens, finish.text, finish.reason) == (expected.tokens, expected.text, expected.reason)
    assert seen == {"speculative", "ar"}


def test_ten_threads(tiny: Model) -> None:
    """Routed at once, streaming, in shared passes; the load is what speeds are kept by."""
    shared = SharedModel(tiny)

    def ask(number: int) -> Finish:
        *_, last = shared.stream(auto(number))
        assert isinstance(last, Finish)
        return last

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(ask, range(10)))
    for number, finish in enumerate(found):
        assert finish.tokens == plain(tiny, number).tokens
        assert finish.usage.route
    book().close()
    kept = json.loads(book().place.read_text(encoding="utf-8"))
    assert all("greedy" in situation for known in kept["models"].values() for situation in known["situations"])


def test_a_batch_of_several_kinds(tiny: Model) -> None:
    """Each its own mode, in the same passes; gaps go to what fills them."""
    gap = Request([5, 9, 20], SamplingConfig(mode="auto"), template=[Gap(tokens=4), [30, 40]])
    requests = [auto(0), gap, auto(1, constraint=Regex("[a-z]{9}"))]
    found = SharedModel(tiny).generate(requests)
    assert found[1].usage.mode == "diffusion"
    assert "gaps" in (found[1].usage.route or "")
    alone = Request(gap.tokens, SamplingConfig(mode="diffusion"), template=gap.template)
    assert found[1].tokens == tiny.engine().generate([alone])[0].tokens
    assert found[0].tokens == plain(tiny, 0).tokens
    assert found[2].tokens == plain(tiny, 1, constraint=Regex("[a-z]{9}")).tokens
    # Three rows share the passes.
    assert all("2 to 3 rows" in (finish.usage.route or "") for finish in found)


def test_options_of_one_mode_choose_it(tiny: Model) -> None:
    """No other honours them."""
    for number in range(3):
        [finish] = tiny.engine().generate([auto(number, draft_length=2)])
        assert finish.usage.mode == "speculative"
        assert "no other mode" in (finish.usage.route or "")


def _told(mode: str, _known: Situation, _wider: Sequence[Pool]) -> tuple[str, str]:
    return mode, ""


def test_measures_choose_the_faster(tiny: Model) -> None:
    """What others have measured here is believed."""
    engine = tiny.engine()
    route = engine.router.explain(auto(0), 1)
    for mode, seconds in (("speculative", 2.0), ("ar", 1.0)) * 3:
        book().choose(engine.router._model, route.places(1), partial(_told, mode))
        book().learn(engine.router._model, route.places(1), mode, 50, seconds)
    assert engine.router.explain(auto(0), 1).mode == "ar"
    assert "fastest here so far" in engine.router.explain(auto(0), 1).why
    # Elsewhere it comes first, and is measured.
    elsewhere = engine.router.explain(auto(0), 12)
    assert (elsewhere.mode, elsewhere.why[:32]) == ("ar", "not measured on requests like th")


def test_slow_decoding_and_what_verifies_it() -> None:
    """Where the same text is promised, and nowhere else; token for token."""
    model = random_model("llada", "freedave", "ssd", seed=1, cache="none", block_length=8)
    engine, options = model.engine(), {"steps": 4, "block_length": 8, "max_new_tokens": 8}
    config = SamplingConfig(mode="auto", **options)
    assert engine.router.explain(Request([3, 4, 5], config), 1).modes == ("llada", "freedave", "ssd")
    slow = [Request([3, 4, number], SamplingConfig(mode="llada", **options), frozenset()) for number in range(4)]
    quick = [Request([3, 4, number], config, frozenset()) for number in range(4)]
    expected = [finish.tokens for finish in engine.generate(slow)]
    found = [engine.generate([request])[0] for request in quick]
    assert [finish.tokens for finish in found] == expected
    assert {finish.usage.mode for finish in found} >= {"llada", "freedave", "ssd"}
    for other in ({"threshold": 0.5}, {"steps": 4, "bad_words": ((7,),)}, {"steps": 8, "max_new_tokens": 16}):
        changed = SamplingConfig(**{"mode": "auto", "block_length": 8, "max_new_tokens": 8, **other})
        assert engine.router.explain(Request([3, 4, 5], changed), 1).modes == ("llada",)


def test_without_row_invariance_nothing_is_the_same() -> None:
    """Rounding could change a token, so only the model's first mode is left."""
    model = scripted_model(lambda _seen, _position: torch.zeros(32), "ar", "speculative", numerics="approximate")
    assert model.engine().router.explain(auto(0), 1).modes == ("ar",)


def test_a_rule_changes_the_text(tiny: Model, folder: Path) -> None:
    """As its user wrote it."""
    (folder / "routes.toml").write_text('open = "diffusion"\n', encoding="utf-8")
    [finish] = tiny.engine().generate([auto(0)])
    assert finish.usage.mode == "diffusion"
