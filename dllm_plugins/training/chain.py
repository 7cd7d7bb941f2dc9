"""A hidden Markov chain: the probability of every sequence, and every posterior, exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
        """Every sequence, int64 [V^length, length], in the order of :func:`sequence_number`."""
        return torch.cartesian_prod(*[torch.arange(self.vocabulary)] * length).reshape(-1, length)

    def distribution(self, length: int, prompt: Sequence[int] = (), suffix: Sequence[int] = ()) -> Tensor:
        """Probability [V^length] of every answer between a prompt and a suffix."""
        answers = self.sequences(length)
        given = [torch.tensor(list(part), dtype=torch.int64).expand(len(answers), -1) for part in (prompt, suffix)]
        found = self.likelihood(self.evidence(torch.cat([given[0], answers, given[1]], dim=1)))
        return found / found.sum()


def sequence_number(sequences: Tensor, vocabulary: int) -> Tensor:
    """The place of each sequence [N, L] among all of its length, int64 [N]."""
    powers = vocabulary ** torch.arange(sequences.shape[1] - 1, -1, -1)
    return (sequences * powers).sum(-1)
