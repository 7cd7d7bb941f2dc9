"""The ways to decode that are compared, as settings of the engine that anybody could type."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_plugins.config import SamplingConfig


@dataclass(frozen=True, slots=True)
class Way:
    """One setting.

    :param passes: how many the setting asks for, of the answer as a whole; a mode may need fewer.
    """

    name: str
    passes: int
    config: SamplingConfig


def ways_of(kind: str, length: int) -> list[Way]:
    """Every way that fits models of a kind.

    :param kind: of a :class:`~dllm_plugins.training.reasoning.methods.Method`.
    :param length: of an answer.
    """
    by_kind = {"causal": _causal, "masked": _masked, "unshifted": _unshifted, "blocks": _blocks, "uniform": _uniform}
    return by_kind[kind](length)


def _way(name: str, length: int, passes: int, **options: Any) -> Way:
    return Way(name, passes, SamplingConfig(max_new_tokens=length, seed=0, **options))


def _counts(length: int) -> list[int]:
    """Passes from one to one a position, doubling."""
    return [*(count for count in (1, 2, 4, 8, 16, 32, 64) if count < length), length]


def _causal(length: int) -> list[Way]:
    return [_way("left to right", length, length, mode="ar")]


def _masked(length: int) -> list[Way]:
    whole: Mapping[str, Any] = {"mode": "scheduled", "block_length": length}
    found = [_way("left to right", length, length, mode="scheduled", block_length=1, steps=length)]
    for count in _counts(length):
        found.append(_way("random order", length, count, **whole, rule="random", steps=count))
    for count in _counts(length):
        found.append(_way("surest first", length, count, **whole, rule="quota", steps=count))
    for count in _counts(length)[1:]:
        found.append(_way("MGDM's sampler", length, count, mode="mgdm", steps=count))
    corrected = {"corrector": 4.0}
    return [
        *found,
        _way("flow matching", length, 2 * length, mode="flow", steps=2 * length),
        _way("flow, corrector", length, 2 * length, mode="flow", steps=2 * length, preset_options=corrected),
        _way("surest first, doubt", length, length, **whole, rule="quota", steps=length, revoke="doubt"),
        _way("FreeDave, lossless", length, length, mode="freedave", block_length=length),
    ]


def _unshifted(length: int) -> list[Way]:
    # MGDM's sampler predicts words that stand anew, by their own rows, which a masked loss teaches nothing.
    return [way for way in _masked(length) if way.config.mode != "mgdm"]


def _blocks(length: int) -> list[Way]:
    options = {"remasking": "low_confidence_static"}
    return [
        _way("blocks, a position a pass", length, length, mode="diffusion", preset_options=options),
        _way("blocks, a block a pass", length, 1, mode="diffusion", steps=1, preset_options=options),
    ]


def _uniform(length: int) -> list[Way]:
    told = {"self_conditioning": False}
    found = [
        _way("uniform flow", length, count, mode="flow_uniform", steps=count, preset_options=told)
        for count in (*_counts(length), 4 * length)
    ]
    corrected = {**told, "corrector": 4.0}
    return [
        *found,
        _way(
            "uniform flow, corrector",
            length,
            4 * length,
            mode="flow_uniform",
            steps=4 * length,
            preset_options=corrected,
        ),
    ]
