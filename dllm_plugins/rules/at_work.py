"""A commit rule, and perhaps a revocation rule, at work on one row: they remember from pass to pass."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import cast

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.row import Row
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import check_parameters
from dllm_plugins.rules.base import needs_of
from dllm_plugins.rules.base import rescores
from dllm_plugins.rules.base import revocation_parameters
from dllm_plugins.rules.base import wants_logits
from dllm_plugins.rules.view import Positions
from dllm_plugins.rules.view import Seen
from dllm_plugins.rules.view import make_view


class RulesAtWork:
    """The rules of one row.

    :param needs: fields of :class:`~dllm_plugins.rules.base.CanvasView` that they read beside the usual ones.
    :param wants_logits: whether they need logits.
    :param rescores: whether the commit rule changes logits before tokens are drawn from them.
    """

    def __init__(self, row: Row, rule: CommitRule, revocation: RevocationRule | None = None) -> None:
        also = revocation.needs if revocation else frozenset[str]()
        self.needs = needs_of(rule) | also
        self.wants_logits = wants_logits(rule, also)
        self.rescores = rescores(rule)
        self.revocation = revocation
        self._rule = rule
        self._config = row.config
        self._noise = row.noise
        self._state: Any = None
        self._revocation_state: Any = None

    def rescore(self, logits: Tensor, offsets: Sequence[int], step: int) -> Tensor:
        """Logits [N, V] to draw from in place of those given.

        :param offsets: how far each position is from where the answer begins.
        """
        if not self.rescores:
            return logits
        rule = cast(RuleDefaults, self._rule)
        changed, self._state = rule.rescore(logits, torch.tensor(offsets), step, self._config, self._state)
        return changed

    def view(self, positions: Positions, seen: Seen, *, committed_now: int, step: int) -> CanvasView:
        """What the rules see of a pass."""
        return make_view(positions, seen, self.needs, committed_now=committed_now, step=step, noise=self._noise)

    def commit(self, view: CanvasView) -> list[int]:
        """Indices of the positions to commit."""
        decision, self._state = self._rule.decide(view, (self._config,), self._state)
        chosen: list[int] = decision[0].nonzero()[:, 0].tolist()
        return chosen

    def revoke(self, view: CanvasView) -> list[int]:
        """Indices of the positions to reopen, none without a revocation rule."""
        if self.revocation is None:
            return []
        again, self._revocation_state = self.revocation.revoke(view, (self._config,), self._revocation_state)
        found: list[int] = again[0].nonzero()[:, 0].tolist()
        return found


def seen_of(answer: Answer, index: Tensor | None, probability: Tensor, needs: frozenset[str]) -> Seen:
    """What an answer with tokens says, as rules read it.

    :param index: int64 [N], into the canvas; None for its first N positions.
    :param probability: how sure the model is of each token, float [N].
    """
    logits = answer.logits if answer.has_logits else torch.empty(0)
    if answer.has_logits:
        return Seen(index, answer.token, probability, logits)
    entropy = answer.entropy if "entropy" in needs else None
    return Seen(index, answer.token, probability, logits, entropy, answer.margin if "margin" in needs else None)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a request may name."""

    commit: Mapping[str, CommitRule]
    revoke: Mapping[str, RevocationRule]

    def at_work(self, row: Row) -> RulesAtWork:
        """Those that a row's request asks for."""
        return RulesAtWork(row, self._rule(row.config), self._revocation(row.config))

    def check(self, config: SamplingConfig) -> None:
        """Refuse an option of another rule than the one that is used, and parameters it does not have.

        :raises OptionError: naming the option and its rule.
        """
        rule, given = self._rule(config), config.given()
        foreign = frozenset[str]().union(*(other.options for other in self.commit.values())) - rule.options
        for option in sorted(foreign & given.keys()):
            raise OptionError(
                message(
                    "option {}={} has no effect with rule {!r}; leave it out or choose its rule",
                    Option(option),
                    shown(given[option]),
                    rule.name,
                )
            )
        check_parameters(rule, config)
        revocation = self._revocation(config)
        if revocation is not None:
            revocation_parameters(revocation.settings, config, revocation.name)
        elif config.revoke_options:
            raise OptionError(
                f"revoke_options={shown(config.revoke_options)} have no effect without revoke; name a rule"
            )

    def _rule(self, config: SamplingConfig) -> CommitRule:
        """The rule asked for by name, or by the only rule option given; else the threshold rule."""
        name = config.rule
        if name is None:
            name = "quota" if config.steps is not None else "factor" if config.factor is not None else "threshold"
        if name not in self.commit:
            raise OptionError(f"unknown rule {name!r}; known rules: {', '.join(sorted(self.commit))}")
        return self.commit[name]

    def _revocation(self, config: SamplingConfig) -> RevocationRule | None:
        if config.revoke is None:
            return None
        if config.revoke not in self.revoke:
            known = ", ".join(sorted(self.revoke)) or "none"
            raise OptionError(f"unknown revocation rule revoke={config.revoke!r}; known: {known}")
        return self.revoke[config.revoke]
