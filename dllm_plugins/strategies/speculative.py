"""AR-verified diffusion drafts: the text of mode `ar` in fewer passes.

One pass holds the clean rows [last token, d1 ... dk] and, behind each of them, a group
of open rows that drafts what follows it, so verifying and drafting share the pass (as
in TiDAR, arXiv 2511.08923; our layout: docs/default-model.md). Drafts are accepted
while they equal what the clean rows themselves draw, with noise keyed on the position,
so sampled text equals sampled AR text too. Where clean and open rows cannot share a call,
the two take turns: one pass verifies, the next one drafts behind what was accepted.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dllm_plugins.canvas import Row
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.failing import blaming
from dllm_plugins.prediction import predict
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import ask_each
from dllm_plugins.strategies.base import check_options
from dllm_plugins.strategies.base import frontier
from dllm_plugins.unmasking import Answer


class SpeculativeStrategy:
    """Draft with open rows, verify with clean rows, both in every pass."""

    name = "speculative"
    keeps_prefix = True
    holes = False
    suffix = False
    options = frozenset({"draft_length"})

    def __init__(self, process: NoiseProcess) -> None:
        self.process = process

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """See :class:`~dllm_plugins.strategies.base.Strategy`."""
        check_options(self.name, config, self.options)

    def plan(self, row: Row, spec: ModelSpec) -> Plan:
        """Clean rows (what is not cached, then the drafts) and one group behind each candidate."""
        apart = self._drafted_apart(row, spec)
        if apart:
            return Plan((self._group(row, len(row.tokens) - 1, apart, spec),), "draft")
        run = row.tokens[row.frozen :]
        clean = run + row.drafts
        first = len(run) - 1
        segments = [
            Segment(row.handle, clean, range(row.frozen, row.frozen + len(clean)), wanted=range(first, len(clean)))
        ]
        for accepted in range(len(row.drafts) + 1 if spec.mixes else 0):
            size = self._group_size(row, accepted, spec)
            if size:
                behind = ((0, first + accepted + 1),)
                segments.append(self._group(row, len(row.tokens) + accepted, size, spec, behind))
        return Plan(tuple(segments), "verify" if row.step else "prefill")

    def _group(
        self, row: Row, place: int, size: int, spec: ModelSpec, behind: tuple[tuple[int, int], ...] = ()
    ) -> Segment:
        """Open rows that draft what follows the token at `place`, whose own row is not needed."""
        return Segment(
            row.handle,
            self.process.noised(size, spec),
            range(place, place + size),
            noisy=True,
            causal=False,
            behind=behind,
            wanted=range(size),
        )

    def _drafted_apart(self, row: Row, spec: ModelSpec) -> int:
        """How many drafts the row's next pass makes where it cannot verify in the same one; 0 if it verifies."""
        if spec.mixes or not row.step or row.drafts or row.frozen < len(row.tokens) - 1:
            return 0
        return self._group_size(row, 0, spec)

    def _group_size(self, row: Row, accepted: int, spec: ModelSpec) -> int:
        """Drafts worth making once `accepted` drafts and one more token are final."""
        wanted = row.config.draft_length or spec.draft_length
        return max(0, min(wanted, row.remaining - accepted - 1))

    def read(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> None:
        """Accept drafts, append the frontier, draft again behind the last accepted token."""
        spec = denoiser.spec
        groups = [parts[0] if self._drafted_apart(row, spec) else None for row, parts in zip(rows, hidden, strict=True)]
        places = [place for place, group in enumerate(groups) if group is None]
        accepted = self._verify([rows[place] for place in places], [hidden[place] for place in places], denoiser)
        for place, count in zip(places, accepted, strict=True):
            rows[place].drafts = []
            parts = hidden[place]
            groups[place] = parts[1 + count] if 1 + count < len(parts) and rows[place].error is None else None
        self._draft(rows, groups, denoiser)

    def _verify(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> list[int]:
        asking = [
            (row, partial(frontier, row, parts[0], len(row.drafts))) for row, parts in zip(rows, hidden, strict=True)
        ]
        accepted = []
        for row, said in zip(rows, ask_each(denoiser, asking), strict=True):
            count = 0
            with blaming(row):
                count = 0 if said is None else self._accept(row, said, denoiser)
            accepted.append(count)
        return accepted

    @staticmethod
    def _accept(row: Row, said: Answer, denoiser: Denoiser) -> int:
        """Take over the drafts that equal what was said, and the token behind them; returns how many drafts."""
        choices, count = said.tokens, 0
        while count < len(row.drafts) and row.drafts[count] == choices[count]:
            count += 1
        denoiser.freeze(row.handle, len(row.tokens) - row.frozen + count)
        for place in range(count + 1 if row.logits is not None else 0):
            row.note(len(row.tokens) + place, said.logits_at(place))
        row.frozen = len(row.tokens) + count
        row.tokens += choices[: count + 1]
        return count

    def _draft(self, rows: Sequence[Row], groups: Sequence[Tensor | None], denoiser: Denoiser) -> None:
        """Draw the drafts left to right, each knowing the two tokens before it."""
        width = max((len(group) for group in groups if group is not None), default=0)
        for place in range(width):
            active = [(r, g) for r, g in zip(rows, groups, strict=True) if g is not None and place < len(g)]
            known = [(row.tokens + row.drafts)[-1:-3:-1] for row, _ in active]
            left = torch.tensor([(*pair, -1)[:2] for pair in known])
            logits, ids = denoiser.draft_logits(torch.stack([group[place] for _, group in active]), left)
            draws = [row.draw(len(row.tokens) + place) for row, _ in active]
            tokens = predict(logits, draws, ids).token.tolist()
            for (row, _), token in zip(active, tokens, strict=True):
                row.drafts.append(token)

    def tentative(self, row: Row, spec: ModelSpec) -> tuple[int | None, ...]:
        """The drafts that the next pass verifies."""
        return tuple(row.drafts)
