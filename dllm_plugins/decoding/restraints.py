"""What may stand on a canvas: a row's constraint, its penalties and its bans, at work on logits."""

from collections.abc import Iterable
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.decoding.row import Row
from dllm_plugins.prediction import predict


class Restraints:
    """Of one row. Tokens are those of its canvas, as they stand, with the mask id where it is open."""

    def __init__(self, row: Row, mask: int) -> None:
        self._row = row
        self._mask = mask
        # What was said of open positions within the constraint, should what stands beside them make it impossible.
        self._said: dict[int, Tensor] = {}
        # What the model said before penalties, of positions that are written from left to right.
        self._raw: dict[int, Tensor] = {}

    def of(self, row: Row) -> "Restraints":
        """The same for the row of a stretch of the answer; what was said is known to both."""
        made = Restraints(row, self._mask)
        made._said, made._raw = self._said, self._raw
        return made

    def allows(self, tokens: Sequence[int], position: int, token: int) -> bool:
        """Whether a token may stand there, so that what is open can still be completed."""
        limits = self._row.limits
        return limits is None or limits.allows(tokens, position, token)

    def movable(self, tokens: Sequence[int], positions: Sequence[int]) -> list[int]:
        """Those of `positions` where something may stand now; a constraint may want others to come first."""
        limits = self._row.limits
        if limits is None:
            return list(positions)
        some = limits.masks(tokens, positions).any(-1).tolist()
        return [position for position, may in zip(positions, some, strict=True) if may]

    def forced(self, tokens: Sequence[int]) -> Iterable[tuple[int, int]]:
        """Open positions with the tokens that have to stand there."""
        return () if self._row.limits is None else self._row.limits.forced(tokens)

    def limited(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        logits: Tensor,
        ids: Tensor | None = None,
        *,
        onward: bool = False,
    ) -> Tensor:
        """Logits [N, V] of positions after penalties, without the tokens that may not stand there.

        :param ids: int64 [V], what the logits are of; None for the whole vocabulary.
        :param onward: whether what stands behind a position does not count there.
        """
        if not len(positions):
            return logits
        row = self._row
        kept, raw = self._steered(tokens, positions, onward, logits, ids), logits
        if row.limits is None:
            found = kept
        else:
            mask = self._allowed(tokens, positions, onward, logits, ids)
            found, raw = kept.masked_fill(~mask, -torch.inf), logits.masked_fill(~mask, -torch.inf)
            if kept is not logits:
                # A constraint comes first: what penalties and bans leave nothing of, it decides alone.
                dead = (found == -torch.inf).all(-1, keepdim=True)
                kept = torch.where(dead, logits.to(kept.dtype), kept)
                found = kept.masked_fill(~mask, -torch.inf)
            if not onward:
                self._said.update(zip(positions, kept, strict=True))
        if onward and row.steering is not None and row.wants_logits:
            self._raw.update(zip(positions, raw, strict=True))
        return found

    def before_penalties(self, position: int, logits: Tensor | None) -> Tensor | None:
        """What the model said of a position, told once; `logits` if no penalty has changed that."""
        return self._raw.pop(position, logits)

    def drawn_again(self, tokens: Sequence[int], position: int) -> tuple[int, Tensor | None]:
        """The token of a position that another of this pass has made impossible, from what the model said of it."""
        limits, said = self._row.limits, self._said.get(position)
        assert limits is not None, "nothing is limited"
        [mask] = limits.masks(tokens, [position])
        logits = None if said is None else said.masked_fill(~mask.to(said.device), -torch.inf)
        if logits is None or bool((logits == -torch.inf).all()):
            return int(mask.int().argmax()), None
        drawn = predict(logits[None], [self._row.canvas_draw(position)], never=self._mask)
        return int(drawn.token[0]), logits

    def _steered(
        self, tokens: Sequence[int], positions: Sequence[int], onward: bool, logits: Tensor, ids: Tensor | None
    ) -> Tensor:
        """Logits [N, V] after penalties and bans; a part of the vocabulary is for drafts only, and left alone."""
        steering = self._row.steering
        if steering is None or ids is not None:
            return logits
        if onward:
            return steering.onward(tokens, positions, logits)
        return steering.on_canvas(tokens, positions, self._mask, logits)

    def _allowed(
        self, tokens: Sequence[int], positions: Sequence[int], onward: bool, logits: Tensor, ids: Tensor | None
    ) -> Tensor:
        """What a constraint allows, bool [N, V]."""
        limits = self._row.limits
        assert limits is not None, "nothing is limited"
        masks = (limits.next_masks if onward else limits.masks)(tokens, positions).to(logits.device)
        masks = masks if ids is None else masks[:, ids]
        # Of drafts from a part of the vocabulary none may be possible; they are refused later.
        return masks | ~masks.any(-1, keepdim=True)
