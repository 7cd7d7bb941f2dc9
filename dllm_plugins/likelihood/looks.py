"""What a model says of tokens that are masked: on the whole text, or in one block behind those before it."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment

#: Positions whose logits are built at once: those of a long text would be as large as the model.
_TOGETHER = 64


def log_probabilities(denoiser: Denoiser, hidden: Tensor) -> Tensor:
    """Over the whole vocabulary, at temperature 1; hidden [N, width] to [N, V], float32 or float64 on the CPU."""
    parts = []
    for part in hidden.split(_TOGETHER):
        logits = denoiser.logits(part)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        parts.append(torch.log_softmax(logits, dim=-1).cpu())
    return torch.cat(parts)


class Look(Protocol):
    """Asks a model about texts that differ in what is masked."""

    def at(self, masked: Sequence[Sequence[int]]) -> list[Tensor]:
        """Log-probabilities [len(positions), V] at each of these sets of positions, of a text where they are masked."""


class WholeText:
    """Models that see the whole text both ways: each set of masks is a row of its own.

    :param tokens: the clean text.
    """

    def __init__(self, denoiser: Denoiser, tokens: Sequence[int]) -> None:
        self.denoiser = denoiser
        self.tokens = list(tokens)

    def at(self, masked: Sequence[Sequence[int]]) -> list[Tensor]:
        """See :class:`Look`."""
        shift = int(self.denoiser.spec.shifted)
        rows = [self.denoiser.open_row() for _ in masked]
        try:
            segments = [
                Segment(
                    row,
                    masked_at(self.tokens, positions, self.denoiser.spec.mask_id),
                    range(len(self.tokens)),
                    noisy=True,
                    causal=False,
                    wanted=[position - shift for position in positions],
                )
                for row, positions in zip(rows, masked, strict=True)
            ]
            return [log_probabilities(self.denoiser, part) for part in self.denoiser.forward(segments)]
        finally:
            for row in rows:
                self.denoiser.close_row(row)


class OneBlock:
    """Models that see their block both ways, and clean ones before it, which are frozen in the row.

    :param tokens: the clean text from its beginning, filled up with masks to the end of the block.
    """

    def __init__(self, denoiser: Denoiser, row: int, tokens: Sequence[int], block: range) -> None:
        self.denoiser = denoiser
        self.row = row
        self.tokens = list(tokens)
        self.block = block

    def at(self, masked: Sequence[Sequence[int]]) -> list[Tensor]:
        """See :class:`Look`."""
        mask, begin = self.denoiser.spec.mask_id, self.block.start
        shift = int(self.denoiser.spec.shifted)
        segments = [
            Segment(
                self.row,
                masked_at(self.tokens, positions, mask)[begin : self.block.stop],
                self.block,
                noisy=True,
                causal=False,
                wanted=[position - shift - begin for position in positions],
            )
            for positions in masked
        ]
        return [log_probabilities(self.denoiser, part) for part in self.denoiser.forward(segments)]


def masked_at(tokens: Sequence[int], positions: Sequence[int], mask: int) -> list[int]:
    """The text with these positions masked."""
    found = list(tokens)
    for position in positions:
        found[position] = mask
    return found
