"""The contract of a strategy: what the next pass holds, and what it meant."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dllm_plugins.canvas import Row
from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.failing import blaming
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.said import Option
from dllm_plugins.said import listed
from dllm_plugins.said import said
from dllm_plugins.said import shown
from dllm_plugins.unmasking import Answer
from dllm_plugins.unmasking import Ask
from dllm_plugins.unmasking import ask_all


@dataclass(frozen=True, slots=True)
class Plan:
    """The segments of one row for the next pass, the kind it counts as, and whether held keys go first."""

    segments: tuple[Segment, ...]
    kind: str
    release: bool = False


class Strategy(Protocol):
    """One decoding method. Holds no state: everything is in the rows.

    `name` is the mode users ask for; `options` are the SamplingConfig fields it honours
    beside the common ones. `keeps_prefix`: any first part of its rows' prefix serves later
    rows; `holes`, `suffix`: whether it fills open positions inside a prompt, and a gap
    before given tokens.
    """

    name: str
    options: frozenset[str]
    keeps_prefix: bool
    holes: bool
    suffix: bool

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """Refuse options that this mode would not honour.

        :raises OptionError: naming the option and the remedy.
        """

    def plan(self, row: Row, spec: ModelSpec) -> Plan:
        """What the next pass holds for `row`."""

    def read(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> None:
        """Apply a pass to its rows: new final tokens, new drafts, what to freeze.

        What one of them raises is noted in its `error` (:func:`~dllm_plugins.failing.blaming`) and ends that row
        only; what comes out of here ends them all.

        :param hidden: per row, per segment of its plan, what :meth:`Denoiser.forward` returned.
        """

    def tentative(self, row: Row, spec: ModelSpec) -> tuple[int | None, ...]:
        """Tokens to show behind the final ones; None where open."""


def ask_each(denoiser: Denoiser, asking: Sequence[tuple[Row, Callable[[], Ask]]]) -> list[Answer | None]:
    """The answer to each row's own question; None for a row that failed before, or cannot put it."""
    asks = asks_of(asking)
    said = iter(ask_all(denoiser, [ask for ask in asks if ask is not None]))
    return [None if ask is None else next(said) for ask in asks]


def asks_of(asking: Sequence[tuple[Row, Callable[[], Ask]]]) -> list[Ask | None]:
    """Each row's own question; None for a row that failed before, or cannot put it."""
    asks: list[Ask | None] = []
    for row, make in asking:
        asks.append(None)
        if row.error is None:
            with blaming(row):
                asks[-1] = make()
    return asks


def frontier(row: Row, hidden: Tensor, also: int = 0) -> Ask:
    """What a row asks of the position right behind its final text; hidden [1 + also, width].

    :param also: positions behind that one that are asked about, too.
    """
    draws = [row.draw(len(row.tokens) + place) for place in range(1 + also)]
    return Ask(hidden, draws, logits=row.logits is not None)


def check_options(
    name: str, config: SamplingConfig, honoured: frozenset[str], *, truncates_greedy: bool = False
) -> None:
    """Refuse options that neither every mode nor this one honours.

    :param truncates_greedy: top_k and top_p matter at temperature 0, too.
    :raises OptionError: naming the option and the remedy.
    """
    for option, value in config.given().items():
        if option not in COMMON_OPTIONS and option not in honoured:
            raise OptionError(
                said(
                    "option {}={} has no effect in mode {!r} (options of this mode: {}); leave it out or "
                    "choose another mode",
                    Option(option),
                    shown(value),
                    name,
                    listed(honoured),
                )
            )
    if not truncates_greedy:
        config.check_sampling()


def choose_rule(config: SamplingConfig, rules: Mapping[str, CommitRule]) -> CommitRule:
    """The rule asked for by name, or by the only rule option given; else the threshold rule.

    :raises OptionError: for an unknown rule.
    """
    name = config.rule
    if name is None:
        name = "quota" if config.steps is not None else "factor" if config.factor is not None else "threshold"
    if name not in rules:
        raise OptionError(f"unknown rule {name!r}; known rules: {', '.join(sorted(rules))}")
    return rules[name]
