"""A test model whose answers are known exactly: a hidden Markov chain, asked for its posterior.

A sampler on a trained network can only look plausible: its errors and the network's are one.
Here the denoiser is perfect. What it says of a position is the exact posterior given every
token it sees, by forward-backward (Rabiner, 1989) in float64, and the probability of every
whole sequence can be written down, so whatever distance remains is the sampler's own
(arXiv 2602.19619). It lives in the package rather than among the tests because benchmarks
measure with it, and so that plug-ins can try their own rules and samplers on it.
"""

from collections.abc import Container
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.models import Model


@dataclass(frozen=True)
class Chain:
    """A hidden Markov chain of S states over V tokens; all float64, every row sums to 1.

    :param initial: [S], of the first state.
    :param transition: [S, S], from a state to the next.
    :param emission: [S, V], of a state's token.
    """

    initial: Tensor
    transition: Tensor
    emission: Tensor

    @classmethod
    def random(cls, states: int = 3, vocabulary: int = 3, seed: int = 0, *, evenness: float = 0.6) -> "Chain":
        """A chain of Dirichlet rows: even ones if `evenness` is large, nearly certain ones if it is small."""
        generator = np.random.default_rng(seed)

        def rows(count: int, size: int) -> Tensor:
            # A floor, so that every sequence is possible and no posterior is 0 by rounding.
            return torch.from_numpy(0.94 * generator.dirichlet([evenness] * size, count) + 0.06 / size)

        return cls(rows(1, states)[0], rows(states, states), rows(states, vocabulary))

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.emission.shape[1]

    def evidence(self, tokens: Tensor) -> Tensor:
        """What clean tokens [B, L] say, [B, L, V]: 1 at the token; all ones where it is none (open)."""
        known = (tokens >= 0) & (tokens < self.vocabulary)
        hot = torch.nn.functional.one_hot(tokens.where(known, 0), self.vocabulary).double()
        return hot.where(known[..., None], 1.0)

    def noisy_evidence(self, tokens: Tensor, level: Tensor) -> Tensor:
        """The same if a token is the clean one with probability `level` [B] + (1 - level) / V, else any other."""
        kept = level.double()[:, None, None]
        known = (tokens >= 0) & (tokens < self.vocabulary)
        return (kept * self.evidence(tokens) + (1 - kept) / self.vocabulary).where(known[..., None], 1.0)

    def posterior(self, evidence: Tensor) -> Tensor:
        """Probability of each clean token at each position given all evidence; [B, L, V] to [B, L, V]."""
        seen = evidence @ self.emission.T
        before, state = [], self.initial.expand(len(evidence), -1)
        for place in range(evidence.shape[1]):
            before.append(state)
            state = (state * seen[:, place]) @ self.transition
            state = state / state.sum(-1, keepdim=True)
        behind = [torch.ones_like(state)]
        for place in range(evidence.shape[1] - 1, 0, -1):
            message = (behind[-1] * seen[:, place]) @ self.transition.T
            behind.append(message / message.sum(-1, keepdim=True))
        states = torch.stack(before, 1) * torch.stack(behind[::-1], 1)
        joint = (states @ self.emission) * evidence
        return joint / joint.sum(-1, keepdim=True)

    def likelihood(self, evidence: Tensor) -> Tensor:
        """Probability of the evidence [B, L, V] of each row; [B]."""
        state = self.initial.expand(len(evidence), -1)
        for place, seen in enumerate((evidence @ self.emission.T).unbind(1)):
            state = (state @ self.transition if place else state) * seen
        return state.sum(-1)

    def sequences(self, length: int) -> Tensor:
        """Every sequence, int64 [V^length, length], in the order of :func:`number`."""
        return torch.cartesian_prod(*[torch.arange(self.vocabulary)] * length).reshape(-1, length)

    def distribution(self, length: int, prompt: Sequence[int] = (), suffix: Sequence[int] = ()) -> Tensor:
        """Probability [V^length] of every answer between a prompt and a suffix."""
        answers = self.sequences(length)
        given = [torch.tensor(list(part), dtype=torch.int64).expand(len(answers), -1) for part in (prompt, suffix)]
        found = self.likelihood(self.evidence(torch.cat([given[0], answers, given[1]], dim=1)))
        return found / found.sum()


def number(sequences: Tensor, vocabulary: int) -> Tensor:
    """The place of each sequence [N, L] among all of its length, int64 [N]."""
    powers = vocabulary ** torch.arange(sequences.shape[1] - 1, -1, -1)
    return (sequences * powers).sum(-1)


@dataclass(frozen=True, slots=True)
class Known:
    """The prefix of a row that has ended."""

    tokens: dict[int, int]

    @property
    def length(self) -> int:
        """How many positions it holds."""
        return len(self.tokens)


@dataclass(slots=True)
class _Row:
    """Frozen tokens by position, those of the last pass's first segment, and passes so far."""

    frozen: dict[int, int]
    pending: list[tuple[int, int]]
    passes: int = 0


@dataclass(frozen=True, slots=True)
class _Question:
    """What is seen (position to token), the positions asked for, and the noise level of what is not clean."""

    seen: dict[int, int]
    targets: list[int]
    level: float
    clean: frozenset[int]


class SolvableDenoiser:
    """A :class:`~dllm_plugins.denoisers.base.Denoiser` that knows the truth.

    Its hidden states are log posteriors already, float64 [N, vocabulary]; :meth:`logits` is the
    identity. Positions that a row does not see are summed out, so any attention is right:
    whole canvases, causal rows, cached blocks, shadows.

    :param levels: uniform noise: the level kappa of the tokens in each pass of a row, the last one
        for all later passes. A token is then the clean one with probability kappa + (1 - kappa) / V,
        any other with (1 - kappa) / V each. None for masked noise, where what is not open is clean.
    :param clean: uniform noise: positions that hold clean tokens (the prompt); frozen ones and
        those of earlier segments always do.
    """

    def __init__(
        self,
        chain: Chain,
        spec: ModelSpec,
        levels: Sequence[float] | None = None,
        clean: Container[int] = (),
    ) -> None:
        self.chain = chain
        self.spec = spec
        self.levels = levels
        self.clean = clean
        self._rows: dict[int, _Row] = {}
        self._opened = 0

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """See :class:`~dllm_plugins.denoisers.base.Denoiser`."""
        self._opened += 1
        frozen = {} if prefix is None else {k: v for k, v in prefix.tokens.items() if k < length}  # type: ignore[attr-defined]
        self._rows[self._opened] = _Row(frozen, [])
        return self._opened

    def close_row(self, row: int) -> PrefixState:
        """See :class:`~dllm_plugins.denoisers.base.Denoiser`."""
        return Known(self._rows.pop(row).frozen)

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """Log posteriors [len(wanted), vocabulary] of each segment."""
        questions: list[list[_Question]] = []
        own: dict[int, list[Segment]] = {}
        for segment in segments:
            row, earlier = self._rows[segment.row], own.setdefault(segment.row, [])
            if not earlier:
                row.pending = list(zip(segment.positions, segment.tokens, strict=True))
                row.passes += 1
            questions.append(self._ask(segment, earlier, row))
            earlier.append(segment)
        answers = iter(self._answer([question for asked in questions for question in asked]))
        return [torch.cat([next(answers) for _ in asked]) if asked else self._nothing() for asked in questions]

    def _nothing(self) -> Tensor:
        return torch.empty(0, self.spec.vocabulary, dtype=torch.float64)

    def _ask(self, segment: Segment, earlier: Sequence[Segment], row: _Row) -> list[_Question]:
        """One question for all wanted positions if they see the same, else one each."""
        context = dict(row.frozen)
        for index, count in segment.behind:
            context |= dict(zip(earlier[index].positions[:count], earlier[index].tokens[:count], strict=True))
        context = {place: token for place, token in context.items() if token != self.spec.mask_id}
        level = 1.0 if self.levels is None else self.levels[min(row.passes, len(self.levels)) - 1]
        inside = list(zip(segment.positions, segment.tokens, strict=True))
        shift, groups = int(self.spec.shifted), segment.groups

        def question(wanted: Sequence[int], visible: Sequence[tuple[int, int]]) -> _Question:
            seen = {place: token for place, token in visible if token != self.spec.mask_id}
            clean = frozenset([*context, *(place for place in seen if place in self.clean)])
            return _Question(context | seen, [segment.positions[index] + shift for index in wanted], level, clean)

        if not segment.wanted:
            return []
        if groups is not None:
            return [
                question([index], [pair for pair, group in zip(inside, groups, strict=True) if group <= groups[index]])
                for index in segment.wanted
            ]
        if segment.causal:
            return [question([index], inside[: index + 1]) for index in segment.wanted]
        return [question(segment.wanted, inside)]

    def _answer(self, questions: Sequence[_Question]) -> list[Tensor]:
        if not questions:
            return []
        length = 1 + max(max([*question.seen, *question.targets]) for question in questions)
        tokens = torch.tensor([[q.seen.get(place, -1) for place in range(length)] for q in questions])
        evidence = self.chain.evidence(tokens)
        if self.levels is not None:
            noisy = self.chain.noisy_evidence(tokens, torch.tensor([q.level for q in questions], dtype=torch.float64))
            clean = torch.tensor([[place in q.clean for place in range(length)] for q in questions])
            evidence = evidence.where(clean[..., None], noisy)
        found = torch.log(self.chain.posterior(evidence))
        extra = self.spec.vocabulary - self.chain.vocabulary
        found = torch.nn.functional.pad(found, (0, extra), value=-torch.inf)
        return [said[question.targets] for said, question in zip(found, questions, strict=True)]

    def freeze(self, row: int, count: int) -> None:
        """See :class:`~dllm_plugins.denoisers.base.Denoiser`."""
        self._rows[row].frozen |= dict(self._rows[row].pending[:count])

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Nothing is approximate here."""
        raise NotImplementedError("the solvable model has no approximate cache")

    def release(self, row: int) -> None:
        """Nothing is held."""

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """The hidden states themselves."""
        return hidden

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The hidden states themselves, over all ids."""
        return hidden, None


class Digits:
    """A tokenizer that writes ids as letters."""

    chat_template = None

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """One letter per id."""
        return "".join(chr(97 + token) for token in token_ids)


def solvable_model(
    chain: Chain,
    *,
    levels: Sequence[float] | None = None,
    clean: Container[int] = (),
    **fields: Any,
) -> Model:
    """The chain as a model with every registered mode; the mask id is V, and ids end at V if noise is uniform.

    :param levels: see :class:`SolvableDenoiser`; given, the noise is uniform and no id means open.
    :param fields: of the ModelSpec, in place of those it would have.
    """
    spec = {
        "name": "solvable",
        "vocabulary": chain.vocabulary + (levels is None),
        "mask_id": chain.vocabulary,
        "context": 64,
        "stop_ids": frozenset(),
        "block_length": 64,
        "draft_length": 1,
        "modes": tuple(plugins.strategies()),
        "chain": False,
        "cache": "exact",
        "numerics": "row-invariant",
        **fields,
    }
    return Model("solvable", SolvableDenoiser(chain, ModelSpec(**spec), levels, clean), Digits())
