"""The contracts of commit and revocation rules, and their parameters."""

from dataclasses import dataclass
from threading import RLock
from typing import Any
from typing import Protocol
from typing import TypeVar

import torch
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import ValidationError
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.noise import RowNoise
from dllm_plugins.options.checked import Numbers
from dllm_plugins.options.checked import explain_nested

_EMPTY = torch.empty(0)
#: Parameters read lately, by their class and what was given; see :func:`_read`.
_seen: dict[tuple[type[BaseModel], int], tuple[dict[str, Any] | None, Any]] = {}
_REMEMBERED = 256
# Whoever changes what is remembered; looking is one step. Models of a process share it, each with its own thread.
_remembering = RLock()


@dataclass(frozen=True, slots=True)
class CanvasView:
    """What a rule may know of the canvas of R rows, B positions each.

    The first five are always there; of the rest, what a rule names in `needs`, else empty.

    :param probability: of the drawn token, float [R, B]; anything where not open.
    :param open: bool [R, B], the positions that may be committed now.
    :param committed_now: int64 [R], tokens this pass has committed already (the frontier counts).
    :param step: int64 [R], passes of the row before this one, not counting the prefill.
    :param noise: one random stream per row.
    :param position: int64 [R, B], how far each position is from where the answer begins; -1 where
        there is no position. It names a position from pass to pass. Always given by the engine.
    :param committed: bool [R, B], positions of the answer that hold a token which may still be
        reopened. Always given by the engine.
    :param token: int64 [R, B], drawn at open positions, held by committed ones.
    :param drawn: int64 [R, B], drawn where a prediction was made, at committed positions too.
    :param entropy: float [R, B], of the model's distribution in nats, where a prediction was made.
    :param margin: float [R, B], the first probability's lead over the second, likewise.
    :param held: float [R, B], probability now of the token a committed position holds.
    :param probabilities: float [R, B, V], likewise; 0 where no prediction was made.
    """

    probability: Tensor
    open: Tensor
    committed_now: Tensor
    step: Tensor
    noise: tuple[RowNoise, ...]
    position: Tensor = _EMPTY
    committed: Tensor = _EMPTY
    token: Tensor = _EMPTY
    drawn: Tensor = _EMPTY
    entropy: Tensor = _EMPTY
    margin: Tensor = _EMPTY
    held: Tensor = _EMPTY
    probabilities: Tensor = _EMPTY


class RuleSettings(Numbers):
    """Parameters of a rule that are no options of the engine; users give them in `rule_options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CommitRule(Protocol):
    """Decides which open positions to commit. No model, no I/O, no memory but the state it is handed.

    `name` is what users type; `options` are the SamplingConfig fields the rule honours;
    `summary` is one line with its source. Optional, by :class:`RuleDefaults`: `needs`, the
    fields of :class:`CanvasView` it reads beside the first seven; `settings`, its own
    parameters; `rescore`, which changes logits before tokens are drawn.
    """

    name: str
    options: frozenset[str]
    summary: str

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """Bool [R, B] of positions to commit, a subset of `view.open`, and the next state.

        The state is None at a row's first pass; it is the row's, for all its blocks.
        """


class RuleDefaults:
    """What a rule has unless it says otherwise."""

    needs: frozenset[str] = frozenset()
    settings: type[RuleSettings] = RuleSettings

    def rescore(
        self, logits: Tensor, position: Tensor, step: int, config: SamplingConfig, state: Any
    ) -> tuple[Tensor, Any]:
        """Logits [N, V] of one row to draw from at positions [N], and the next state; before `decide`.

        As `decide`, it may be called several times in one pass, with the same `step`.
        """
        return logits, state


class RevocationRule(Protocol):
    """Decides which committed positions to reopen, after the commit rule. As pure as a commit rule.

    A pass that reopens must not undo for ever what others commit: the rule sees to that.
    `replaces`: a reopened position takes the drawn token at once (token editing).
    """

    name: str
    summary: str
    needs: frozenset[str]
    settings: type[RuleSettings]
    replaces: bool

    def revoke(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """Bool [R, B] of positions to reopen, a subset of `view.committed`, and the next state."""


Parameters = TypeVar("Parameters", bound=RuleSettings)


def needs_of(rule: CommitRule) -> frozenset[str]:
    """The fields of the view a rule reads beside those that are always there."""
    return frozenset(getattr(rule, "needs", ()))


#: What only the logits themselves tell.
_FROM_LOGITS = frozenset({"held", "probabilities"})


def rescores(rule: CommitRule) -> bool:
    """Whether a rule changes logits before tokens are drawn from them."""
    own = getattr(type(rule), "rescore", None)
    return own is not None and own is not RuleDefaults.rescore


def wants_logits(rule: CommitRule, also: frozenset[str] = frozenset()) -> bool:
    """Whether a rule needs more of a pass than tokens, probabilities, entropies and margins.

    :param also: what a revocation rule beside it needs.
    """
    return rescores(rule) or bool((needs_of(rule) | also) & _FROM_LOGITS)


def parameters(settings: type[Parameters], config: SamplingConfig, name: str) -> Parameters:
    """A commit rule's own parameters in a request.

    :raises OptionError: for one it does not have, or a value out of range.
    """
    return _read(settings, config.rule_options, "rule_options", name)


def revocation_parameters(settings: type[Parameters], config: SamplingConfig, name: str) -> Parameters:
    """A revocation rule's own parameters in a request.

    :raises OptionError: as for a commit rule.
    """
    return _read(settings, config.revoke_options, "revoke_options", name)


def _read(settings: type[Parameters], given: dict[str, Any] | None, option: str, name: str) -> Parameters:
    """Parameters as they were given, read once per request: rules ask in every pass.

    Known by the identity of what was given; it is kept alive meanwhile, so that no other can have the same.
    """
    key = (settings, id(given))
    known = _seen.get(key)
    found: Parameters = _read_anew(settings, given, option, name) if known is None else known[1]
    return found


def _read_anew(settings: type[Parameters], given: dict[str, Any] | None, option: str, name: str) -> Parameters:
    found = _validated(settings, given, option, name)
    with _remembering:
        # As the last one: the first are forgotten.
        _seen.pop((settings, id(given)), None)
        _seen[settings, id(given)] = (given, found)
        while len(_seen) > _REMEMBERED:
            del _seen[next(iter(_seen))]
    return found


def _validated(settings: type[Parameters], given: dict[str, Any] | None, option: str, name: str) -> Parameters:
    try:
        return settings(**(given or {}))
    except ValidationError as error:
        wrong = explain_nested(error, option, f"rule {name!r}", settings, settings.model_fields)
        raise OptionError(wrong) from None


def check_parameters(rule: CommitRule, config: SamplingConfig) -> None:
    """Refuse parameters a commit rule does not have.

    :raises OptionError: naming the parameter.
    """
    settings = getattr(rule, "settings", None)
    if settings is not None:
        # Read anew for a new request: what a parameter names, such as a file, may have changed.
        _read_anew(settings, config.rule_options, "rule_options", rule.name)
    elif config.rule_options:
        raise OptionError(f"rule {rule.name!r} has no rule_options; leave {shown(config.rule_options)} out")


def most_probable(probability: Tensor, open_positions: Tensor, count: Tensor) -> Tensor:
    """The `count` [R] most probable open positions of each row, bool [R, B]; ties go left."""
    ranked = probability.masked_fill(~open_positions, -torch.inf)
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    return open_positions & (rank < count[:, None])
