"""What `steps` counts, sampler by sampler: met exactly, or refused with the values that can be met."""

from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import OptionError

from .tiny_models import random_model

#: Never sure of anything, so that only `steps` says how many passes there are.
NEVER: frozenset[int] = frozenset()
OWN: dict[str, dict[str, Any]] = {
    "sdar": {"preset_options": {"remasking": "low_confidence_static"}},
    "llada2.0": {"threshold": 1.0},
    "blocks": {"rule": "quota"},
    "diffusion": {"rule": "quota"},
}
BLOCKS = ("bd3lm", "stable_diffcoder", "sdar", "llada2.0", "blocks")


def decode(mode: str, prompt: list[int], **options: Any) -> Finish:
    """One answer to its end, in blocks of four."""
    cached = mode in BLOCKS
    model = random_model(mode, seed=1, cache="exact" if cached else "none", holds=True, **options.pop("spec", {}))
    config = SamplingConfig(**{"mode": mode, "max_new_tokens": 16, **OWN.get(mode, {}), **options})
    return model.engine().generate([Request(prompt, config, NEVER)])[0]


@pytest.mark.parametrize("mode", ["llada", "fast_dllm", "scheduled", "mdlm", "bd3lm", "stable_diffcoder"])
@pytest.mark.parametrize("steps", [4, 8, 16])
def test_passes_of_the_whole_answer(mode: str, steps: int) -> None:
    """Sixteen tokens in four blocks: as many passes as were asked for."""
    assert decode(mode, [1, 2, 3, 4], steps=steps).usage.total_passes == steps


@pytest.mark.parametrize("rule", ["quota", "random", "margin", "position_aware"])
def test_every_rule_that_has_steps(rule: str) -> None:
    """They are told the passes of a block, whatever the request counts."""
    assert decode("llada", [1, 2, 3], steps=8, rule=rule).usage.total_passes == 8


@pytest.mark.parametrize("mode", ["sdar", "llada2.0", "blocks"])
def test_passes_of_a_block(mode: str) -> None:
    """Sixteen tokens in four blocks: four times as many."""
    assert decode(mode, [1, 2, 3, 4], steps=2).usage.total_passes == 8


@pytest.mark.parametrize(("mode", "steps"), [("dream", 5), ("dream", 20), ("open_dcoder", 5), ("rnd1", 5)])
def test_passes_of_the_whole_canvas(mode: str, steps: int) -> None:
    """No blocks, so any number; more than there are positions is a finer schedule, as in the original."""
    assert decode(mode, [1, 2, 3], steps=steps, spec={"shifted": True}).usage.total_passes == steps


@pytest.mark.parametrize(
    ("mode", "options", "words"),
    [
        ("llada", {"steps": 6}, "4 blocks of 4; give a multiple of 4 from 4 to 16, or another max_new_tokens"),
        ("llada", {"steps": 20}, "steps=20 cannot be met: .* give a multiple of 4 from 4 to 16"),
        ("fast_dllm", {"steps": 1}, "multiple of 4 from 4 to 16"),
        ("scheduled", {"steps": 3}, "multiple of 4 from 4 to 16"),
        (
            "llada",
            {"steps": 12, "max_new_tokens": 14},
            "4 blocks of 4, the last of 2; give a multiple of 4 from 4 to 8",
        ),
        ("llada", {"steps": 4, "max_new_tokens": 3}, "one block of 3; give from 1 to 3"),
        ("mdlm", {"steps": 10}, "multiple of 4 from 4 to 16"),
        ("bd3lm", {"steps": 20}, "multiple of 4 from 4 to 16"),
        ("stable_diffcoder", {"steps": 7}, "multiple of 4 from 4 to 16"),
        ("sdar", {"steps": 5}, "one block, which has 4 positions, .* give from 1 to 4, or a larger block_length"),
        ("blocks", {"steps": 9, "block_length": 8}, "give from 1 to 8"),
        ("freedave", {"steps": 5}, "give from 1 to 4"),
        ("llada2.0", {"steps": 5}, "give from 1 to 4"),
        ("llada2.0", {"steps": 4, "preset_options": {"minimal_topk": 8}}, "minimal_topk=8 leave a block 2 passes"),
        ("llada2.0", {"steps": 3, "max_new_tokens": 2}, "max_new_tokens=2 and minimal_topk=1 leave a block 2 passes"),
    ],
)
def test_refused(mode: str, options: dict[str, Any], words: str) -> None:
    """With the value and those that work, when the request comes."""
    with pytest.raises(OptionError, match=words):
        decode(mode, [1, 2, 3, 4], **options)


def test_general_rules_refuse_more_than_the_block() -> None:
    """Mode `diffusion` of the engine: a block cannot use more passes than it has positions."""
    model = random_model("diffusion", seed=1)
    config = SamplingConfig(mode="diffusion", steps=5, max_new_tokens=8)
    with pytest.raises(OptionError, match=r"steps=5 cannot be met: .* give from 1 to 4"):
        model.engine().admit(Request([1, 2], config))
    with pytest.raises(OptionError, match="give from 1 to 3"):
        model.engine().admit(Request([1, 2], config.with_options(steps=4, block_length=3, rule="random")))


@pytest.mark.parametrize("mode", ["llada", "mdlm", "bd3lm", "sdar", "llada2.0", "dream", "rnd1", "diffullama"])
@pytest.mark.parametrize("new", [1, 3, 14])
def test_defaults_are_never_refused(mode: str, new: int) -> None:
    """Whatever the length: nobody asked for them."""
    options = {name: value for name, value in OWN.get(mode, {}).items() if name != "threshold"}
    assert len(decode(mode, [1, 2, 3], max_new_tokens=new, **options).tokens) == new


def test_less_room_than_asked_for_keeps_the_pace() -> None:
    """The context cuts sixteen tokens to ten: two blocks in two passes each, and one pass for half a block."""
    found = decode("llada", [1] * 22, steps=8, spec={"context": 32})
    assert len(found.tokens) == 10
    assert found.usage.total_passes == 6
    with pytest.raises(OptionError, match="max_new_tokens=16 makes 4 blocks of 4"):
        decode("llada", [1] * 22, steps=9, spec={"context": 32})


def test_a_short_last_block_leaves_out_what_commits_nothing() -> None:
    """As in dllm's samplers, which take any length: fourteen tokens, the last block has two."""
    for mode in ("mdlm", "bd3lm"):
        assert decode(mode, [1, 2, 3], max_new_tokens=14, steps=16).usage.total_passes == 14
        assert decode(mode, [1, 2, 3], max_new_tokens=14, steps=8).usage.total_passes == 8
