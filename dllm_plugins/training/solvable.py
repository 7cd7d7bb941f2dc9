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

import torch
from torch import Tensor

from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.models import Model
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.chain import sequence_number

__all__ = ["Chain", "SolvableDenoiser", "sequence_number", "solvable_model"]


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
        inside = list(zip(segment.positions, segment.tokens, strict=True))
        if not segment.causal and segment.groups is None and segment.apart is None:
            return [self._question(segment, segment.wanted, inside, earlier, row)] if segment.wanted else []
        groups = segment.groups or (range(len(inside)) if segment.causal else [0] * len(inside))
        return [
            self._question(
                segment,
                [index],
                [pair for pair, group in zip(inside, groups, strict=True) if group <= groups[index]],
                earlier,
                row,
            )
            for index in segment.wanted
        ]

    def _question(
        self,
        segment: Segment,
        wanted: Sequence[int],
        inside: Sequence[tuple[int, int]],
        earlier: Sequence[Segment],
        row: _Row,
    ) -> _Question:
        """What wanted indices are told that see these pairs (position, token) of their own segment."""
        clean, mask = dict(row.frozen), self.spec.mask_id
        for number, (index, count) in enumerate(segment.behind):
            pairs = list(zip(earlier[index].positions[:count], earlier[index].tokens[:count], strict=True))
            if segment.apart is not None and number == len(segment.behind) - 1 and segment.apart[wanted[0]] >= 0:
                del pairs[segment.apart[wanted[0]]]
            clean |= {place: token for place, token in pairs if token != mask}
        own = {place: token for place, token in inside if token != mask}
        level = 1.0 if self.levels is None else self.levels[min(row.passes, len(self.levels)) - 1]
        return _Question(
            seen=clean | own,
            targets=[segment.positions[index] + int(self.spec.shifted) for index in wanted],
            level=level,
            clean=frozenset([*clean, *(place for place in own if place in self.clean)]),
        )

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
        raise OptionError(f"{self.spec.name} only has an exact cache; leave approximate_cache out")

    def release(self, row: int) -> None:
        """Nothing is held."""

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """The hidden states themselves."""
        return hidden

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The hidden states themselves, over all ids."""
        return hidden, None


class Letters:
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
        "modes": tuple(plugins.modes()),
        "draft_head": False,
        "cache": "exact",
        "numerics": "row-invariant",
        **fields,
    }
    return Model("solvable", SolvableDenoiser(chain, ModelSpec(**spec), levels, clean), Letters())
