"""Every rule decodes end to end: on the default model, on a whole canvas, and on exact cached blocks."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load
from dllm_plugins.rules import CanvasView

from ..golden.cases import case_folders

RULES = sorted(plugins.rules())
REVOCATIONS = sorted(plugins.revocations())
#: Parameters with which rules of tiny models have something to do.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "entropy_bound": [{"rule_options": {"gamma": 6.0}}, {"rule_options": {"gamma": 12.0, "order": "probability"}}],
    "margin": [{"threshold": 0.01}, {"steps": 3}],
    "klass": [{"threshold": 0.01, "rule_options": {"divergence": 5.0, "history": 1}}],
    "credit": [{"threshold": 0.02, "rule_options": {"alpha": 2.0}}],
    "hierarchical": [{"rule_options": {"low_threshold": 0.01}}],
    "local_leap": [{"threshold": 0.05, "rule_options": {"relaxed": 0.01, "radius": 2}}],
    "slow_fast": [{"threshold": 0.02, "rule_options": {"span": 0.01}}],
    "position_aware": [{"steps": 3, "rule_options": {"corpus": tuple(range(1, 100)), "decay": 0.1}}],
}
REVOKING: dict[str, dict[str, Any]] = {
    "doubt": {"threshold": 0.5, "most": 2, "times": 2},
    "edit": {"edit_threshold": 0.02},
}


@cache
def golden(name: str) -> Model:
    """The tiny checkpoint of a case, on the block decoder: what is asked here is about rules."""
    case = next(Case(folder) for folder in case_folders() if folder.name == name)
    return CaseModels(case, "kernels").get(**first_load(case))


@pytest.fixture(params=["diffusion", "llada", "blocks"])
def way(request: pytest.FixtureRequest, tiny: Model) -> tuple[str, Model]:
    """A mode and a model that has it."""
    mode: str = request.param
    return mode, {"diffusion": lambda: tiny, "llada": lambda: golden("llada_dense"), "blocks": lambda: golden("sdar")}[
        mode
    ]()


def requests(mode: str, model: Model, temperature: float, **options: Any) -> list[Request]:
    """Unequal prompts and budgets; nothing ends an answer.

    :param options: `steps` are those of a block.
    """
    spec = model.denoiser.spec
    if mode == "llada" and "steps" in options:
        # Which counts those of the whole answer: two blocks.
        options["steps"] *= 2
    ids = [token for token in range(20, spec.vocabulary) if token not in (*spec.stop_ids, spec.mask_id)]
    return [
        Request(
            [ids[(7 * number + 3 * position) % len(ids)] for position in range(length)],
            SamplingConfig(
                mode=mode, temperature=temperature, seed=number, max_new_tokens=13 + number, block_length=8, **options
            ),
            stop_ids=frozenset(),
        )
        for number, length in enumerate((3, 16, 11))
    ]


def told(finish: Finish) -> tuple[Any, ...]:
    return finish.tokens, finish.usage.passes


def decode(mode: str, model: Model, temperature: float, **options: Any) -> list[Finish]:
    """A batch; it equals its rows alone, keeps its budgets, leaks no mask, and stays within its passes."""
    asked = requests(mode, model, temperature, **options)
    together = model.engine().generate(asked)
    alone = [model.engine().generate([request])[0] for request in asked]
    assert [told(finish) for finish in together] == [told(finish) for finish in alone]
    for finish, request in zip(together, asked, strict=True):
        assert len(finish.tokens) == request.config.max_new_tokens
        assert model.denoiser.spec.mask_id not in finish.tokens
    return together


def ways_of(rule: str) -> Iterator[dict[str, Any]]:
    yield {}
    yield from OPTIONS.get(rule, [])


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_decodes(way: tuple[str, Model], rule: str, temperature: float) -> None:
    """With its defaults never more passes than tokens; with others fewer."""
    mode, model = way
    for options in ways_of(rule):
        for finish in decode(mode, model, temperature, rule=rule, **options):
            assert finish.usage.total_passes <= finish.usage.canvas_tokens + 1, options


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("revoke", REVOCATIONS)
@pytest.mark.parametrize("way", ["llada", "blocks"], indirect=True)
@pytest.mark.parametrize("rule", ["threshold", "credit", "slow_fast", "klass", "hierarchical"])
def test_every_revocation_decodes(way: tuple[str, Model], rule: str, revoke: str, temperature: float) -> None:
    """Beside rules that remember and rules that do not."""
    mode, model = way
    decode(mode, model, temperature, rule=rule, revoke=revoke)
    decode(mode, model, temperature, rule=rule, revoke=revoke, revoke_options=REVOKING[revoke])


@pytest.mark.parametrize("revoke", REVOCATIONS)
def test_a_revocation_changes_what_was_committed(revoke: str) -> None:
    """Both have an effect on a tiny model, within the passes they allow themselves."""
    model = golden("llada_dense")
    plain = decode("llada", model, 0.0, rule="quota")
    other = decode("llada", model, 0.0, rule="quota", revoke=revoke, revoke_options=REVOKING[revoke])
    assert [finish.tokens for finish in plain] != [finish.tokens for finish in other]
    limit = {"doubt": 1 + REVOKING["doubt"]["times"], "edit": 1}[revoke]
    for finish in other:
        assert finish.usage.total_passes <= limit * finish.usage.canvas_tokens + 1


@pytest.mark.parametrize("rule", sorted(OPTIONS))
def test_parameters_reach_the_rule(rule: str) -> None:
    """Another choice of parameters is another decoding: other passes, for one model at least."""
    for mode, name in (("llada", "llada_dense"), ("blocks", "sdar")):
        model = golden(name)
        found = [
            [told(finish) for finish in model.engine().generate(requests(mode, model, 0.0, rule=rule, **options))]
            for options in ways_of(rule)
        ]
        assert all(other != found[0] for other in found[1:]), mode


def test_a_pass_may_ask_a_rule_several_times(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode diffusion does: so a rule with a budget for a pass must count what the pass committed before."""
    rule, calls = plugins.rules()["entropy_bound"], list[tuple[int, float]]()
    decide = type(rule).decide

    def counted(self: Any, view: CanvasView, *rest: Any) -> Any:
        decision, state = decide(self, view, *rest)
        entropy = view.entropy.where(decision | (~view.open & (view.position >= 0)), 0.0).sum()
        calls.append((int(view.step[0]), float(entropy)))
        return decision, state

    monkeypatch.setattr(type(rule), "decide", counted)
    config = SamplingConfig(mode="diffusion", rule="entropy_bound", rule_options={"gamma": 9.0}, max_new_tokens=40)
    tiny.engine().generate([Request([5, 6, 7], config, stop_ids=frozenset())])
    assert len(calls) > len({step for step, _ in calls})
    assert all(entropy <= 9.0001 for _, entropy in calls)
    assert max(entropy for _, entropy in calls) > 2
