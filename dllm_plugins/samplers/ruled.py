"""A commit rule, and perhaps a revocation rule, at work on one canvas."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.prediction import Said
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule
from dllm_plugins.rules.base import check_parameters
from dllm_plugins.rules.base import needs_of
from dllm_plugins.rules.base import rescores
from dllm_plugins.rules.base import revocation_parameters
from dllm_plugins.rules.base import wants_logits
from dllm_plugins.rules.view import Positions
from dllm_plugins.rules.view import Seen
from dllm_plugins.rules.view import make_view
from dllm_plugins.said import Option
from dllm_plugins.said import said
from dllm_plugins.said import shown
from dllm_plugins.samplers.base import Asked
from dllm_plugins.samplers.base import Settings
from dllm_plugins.samplers.canvas import Canvas
from dllm_plugins.samplers.drawing import ask
from dllm_plugins.samplers.drawing import draw_open
from dllm_plugins.strategies.base import choose_rule

#: Passes over a block, per position, after which nothing is reopened any more: a rule
#: that goes round in circles must not hold a request for ever.
PATIENCE = 4

#: Probability [N] of drawn tokens [N] given logits [N, V].
Confidence = Callable[[Tensor, Tensor], Tensor]


class RuledSettings(Settings):
    """Options of every sampler that asks rules what to settle; defaults are the rules' own."""

    block_length: int | None = Field(None, description="positions denoised together")
    rule: str | None = Field(None, description="commit rule")
    steps: int | None = Field(
        None, description="passes a block is spread over (rules quota, random, margin, position_aware)"
    )
    threshold: float | None = Field(None, description="probability that settles (rule threshold)")
    factor: float | None = Field(None, description="larger settles more a pass (rule factor)")
    rule_options: dict[str, Any] | None = Field(None, description="parameters of the commit rule")
    revoke: str | None = Field(None, description="revocation rule")
    revoke_options: dict[str, Any] | None = Field(None, description="parameters of the revocation rule")


class Ruled:
    """Settles and reopens positions of one canvas as its rules say.

    :param confidence: how sure the model is of each drawn token.
    :param coarse: whether that has the logits' dtype.
    """

    def __init__(
        self,
        canvas: Canvas,
        rule: CommitRule,
        revocation: RevocationRule | None,
        confidence: Confidence,
        *,
        coarse: bool = False,
    ) -> None:
        self.canvas = canvas
        self.rule = rule
        self.revocation = revocation
        self.confidence = confidence
        self.coarse = coarse
        self._wants_logits = wants_logits(rule, revocation.needs if revocation else frozenset())
        self._needs = needs_of(rule) | (revocation.needs if revocation else frozenset())
        self._state: Any = None
        self._revocation_state: Any = None
        self._block = range(0)
        self._step = 0

    def places(self, block: range) -> list[int]:
        """Positions of the answer whose logits are wanted: open ones, all if some may be reopened."""
        inside = range(max(block.start, self.canvas.prompt), block.stop)
        return self.canvas.open(inside) if self.revocation is None else list(inside)

    def asked(self, places: Sequence[int]) -> Asked | None:
        """What the rules need to know of some positions, if they and the request can do without logits."""
        return None if self._wants_logits else ask(self.canvas, places)

    def settle(
        self, block: range, places: Sequence[int], logits: Tensor, *, hasty: bool = False, said: Said | None = None
    ) -> None:
        """Write what the rules decide about a block; logits [len(places), V].

        :param hasty: settle the last open position along with all others.
        :param said: what was said in place of the logits, if it was asked for and given.
        """
        if block != self._block:
            self._block, self._step = block, 0
        canvas, config, row = self.canvas, self.canvas.row.config, self.canvas.row
        opened = set(canvas.open(places))
        index = torch.tensor(places) - block.start
        if said is None:
            if rescores(self.rule):
                rule: Any = self.rule
                offsets = torch.tensor(places) - canvas.prompt
                logits, self._state = rule.rescore(logits, offsets, self._step, config, self._state)
            tokens = draw_open(canvas, logits, places)
            seen = Seen(index, tokens, self.confidence(logits, tokens), logits)
        else:
            tokens, needs = said.token, self._needs
            entropy = said.entropy if "entropy" in needs else None
            sure = said.probability.to(logits.dtype) if self.coarse else said.probability
            seen = Seen(index, tokens, sure, logits, entropy, said.margin if "margin" in needs else None)
        view = make_view(
            self._positions(block, opened), seen, self._needs, settled_now=0, step=self._step, noise=row.noise
        )
        decision, self._state = self.rule.decide(view, (config,), self._state)
        chosen = {block.start + item for item in decision[0].nonzero()[:, 0].tolist()}
        if hasty and len(chosen) == len(opened) - 1:
            chosen = opened
        reopened: set[int] = set()
        if self.revocation is not None:
            again, self._revocation_state = self.revocation.revoke(view, (config,), self._revocation_state)
            if self._step < PATIENCE * len(block):
                reopened = {block.start + item for item in again[0].nonzero()[:, 0].tolist()}
        drawn = tokens.tolist()
        for number, place in enumerate(places):
            if place in chosen or (place in reopened and self.revocation and self.revocation.replaces):
                canvas.write(place, drawn[number], logits[number] if row.logits is not None else None)
            elif place in reopened:
                canvas.reopen(place)
        self._step += 1
        if self.revocation is None:
            canvas.release_settled()

    def _positions(self, block: range, opened: set[int]) -> Positions:
        answer = [self.canvas.prompt <= place for place in block]
        return Positions(
            tokens=[self.canvas.tokens[place] for place in block],
            open=[place in opened for place in block],
            settled=[
                inside and place < self.canvas.end and place not in opened
                for place, inside in zip(block, answer, strict=True)
            ],
            place=[place - self.canvas.prompt if inside else -1 for place, inside in zip(block, answer, strict=True)],
        )


def choose_revocation(config: SamplingConfig, known: Mapping[str, RevocationRule]) -> RevocationRule | None:
    """The revocation rule asked for, if one is.

    :raises OptionError: for an unknown one.
    """
    if config.revoke is None:
        return None
    if config.revoke not in known:
        raise OptionError(f"unknown revocation rule {config.revoke!r}; known: {', '.join(sorted(known)) or 'none'}")
    return known[config.revoke]


def check_rules(
    rules: Mapping[str, CommitRule], revocations: Mapping[str, RevocationRule], config: SamplingConfig
) -> None:
    """Refuse an option of another rule than the one that is used, and parameters it does not have.

    :raises OptionError: naming the option and its rule.
    """
    rule, given = choose_rule(config, rules), config.given()
    foreign = frozenset[str]().union(*(other.options for other in rules.values())) - rule.options
    for option in sorted(foreign & given.keys()):
        raise OptionError(
            said(
                "option {}={} has no effect with rule {!r}; leave it out or choose its rule",
                Option(option),
                shown(given[option]),
                rule.name,
            )
        )
    check_parameters(rule, config)
    revocation = choose_revocation(config, revocations)
    if revocation is not None:
        revocation_parameters(revocation.settings, config, revocation.name)
    elif config.revoke_options:
        raise OptionError(f"revoke_options={shown(config.revoke_options)} have no effect without revoke; name a rule")
