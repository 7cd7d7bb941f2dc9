"""The canvas a sampler writes on: one row's whole sequence, with the mask id where it is open."""

import math
from collections.abc import Iterable
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import without


class Canvas:
    """Prompt, answer and suffix of one row.

    :param tokens: all of it; open positions hold `mask`.
    :param prompt: where the answer begins.
    :param end: the first position the answer may not use.
    :param given: positions behind the prompt that hold fixed tokens, which stay.
    :param shown: where drafts end; None for all of it.
    :param guesses: what the last pass said at positions that it left open, where a program tells.
    :param sure: the probabilities of guesses and of drafts, where a program tells and logprobs are asked for.
    """

    def __init__(self, row: Row, spec: ModelSpec) -> None:
        self.row = row
        self.mask = spec.mask_id
        self.prompt = row.prompt
        self.end = row.end
        self.tokens = [*row.tokens, *row.given]
        self.tokens += [*[self.mask] * (row.end - len(self.tokens)), *row.suffix]
        behind = range(self.prompt, len(self.tokens))
        self.given = frozenset(position for position in behind if self.tokens[position] != self.mask)
        self.shown: int | None = None
        self.guesses: dict[int, int] = {}
        self.sure: dict[int, float] = {}
        self._said: dict[int, Tensor] = {}
        # What the model said before penalties, of positions that are written from left to right.
        self._raw: dict[int, Tensor] = {}

    def stretch(self, row: Row, spec: ModelSpec) -> "Canvas":
        """The canvas of the next stretch of the answer, for a row whose prompt is all that is final."""
        made = Canvas(row, spec)
        made._said, made._raw = self._said, self._raw
        return made

    def follow(self, inner: "Canvas") -> None:
        """Hold what the canvas of a stretch holds."""
        self.tokens, self.guesses, self.sure, self.shown = inner.tokens, inner.guesses, inner.sure, inner.shown

    def show(self, drafted: Sequence[int | None]) -> None:
        """Show guesses behind the final text, None where open, on positions that stay open."""
        end = len(self.row.tokens)
        self.tokens[end:] = [self.mask] * len(drafted)
        self.guesses = {position: token for position, token in enumerate(drafted, end) if token is not None}
        self.shown = None

    def open(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` that are open."""
        return [position for position in positions if self.tokens[position] == self.mask]

    def committed(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` that hold a token which was not given."""
        return [position for position in self.free(positions) if self.tokens[position] != self.mask]

    def free(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` whose token was not given."""
        return [position for position in positions if position not in self.given]

    def movable(self, positions: Sequence[int]) -> list[int]:
        """Those of `positions` where something may stand now; a constraint may want others to come first."""
        limits = self.row.limits
        if limits is None:
            return list(positions)
        some = limits.masks(self.tokens, positions).any(-1).tolist()
        return [position for position, may in zip(positions, some, strict=True) if may]

    def wanting(self, block: range) -> bool:
        """Whether the answer still has open positions in this block."""
        return bool(self.open(range(block.start, min(block.stop, self.end))))

    def drawable(self, logits: Tensor) -> Tensor:
        """Logits [N, V] that never yield the mask id: a position that takes it would stay open for ever."""
        return without(logits, [self.mask])

    def write(self, position: int, token: int, logits: Tensor | None = None) -> None:
        """Commit a position, or write over a committed one.

        :param logits: what the token was drawn from, [V]; None for one that was put there.
        """
        assert position >= self.prompt, "the prompt never changes"
        if token != self.mask and not self.allows(position, token):
            token, logits = self._drawn_again(position)
        self.tokens[position] = token
        self.row.note(position, token, logits)
        self.fill()

    def allows(self, position: int, token: int) -> bool:
        """Whether a token may stand there, so that what is open can still be completed."""
        limits = self.row.limits
        return limits is None or limits.allows(self.tokens, position, token)

    def held(self, positions: Sequence[int], logits: Tensor) -> Tensor:
        """Logits [N, V] that a program has made of others, with constraint, penalties and bans."""
        return self.limited(positions, False, logits, None)

    def limited(self, positions: Sequence[int], onward: bool, logits: Tensor, ids: Tensor | None) -> Tensor:
        """Logits [N, V] of positions after penalties, without the tokens that may not stand there.

        :param onward: whether what stands behind a position does not count there.
        :param ids: int64 [V], what the logits are of; None for the whole vocabulary.
        """
        if not len(positions):
            return logits
        kept, raw = self._steered(positions, onward, logits, ids), logits
        if self.row.limits is None:
            found = kept
        else:
            mask = self._allowed(positions, onward, logits, ids)
            found, raw = kept.masked_fill(~mask, -torch.inf), logits.masked_fill(~mask, -torch.inf)
            if kept is not logits:
                # A constraint comes first: what penalties and bans leave nothing of, it decides alone.
                dead = (found == -torch.inf).all(-1, keepdim=True)
                kept = torch.where(dead, logits.to(kept.dtype), kept)
                found = kept.masked_fill(~mask, -torch.inf)
            if not onward:
                self._said.update(zip(positions, kept, strict=True))
        if onward and self.row.steering is not None and self.row.wants_logits:
            self._raw.update(zip(positions, raw, strict=True))
        return found

    def _steered(self, positions: Sequence[int], onward: bool, logits: Tensor, ids: Tensor | None) -> Tensor:
        """Logits [N, V] after penalties and bans; a part of the vocabulary is for drafts only, and left alone."""
        steering = self.row.steering
        if steering is None or ids is not None:
            return logits
        if onward:
            return steering.onward(self.tokens, positions, logits)
        return steering.on_canvas(self.tokens, positions, self.mask, logits)

    def _allowed(self, positions: Sequence[int], onward: bool, logits: Tensor, ids: Tensor | None) -> Tensor:
        """What a constraint allows, bool [N, V]."""
        limits = self.row.limits
        assert limits is not None, "nothing is limited"
        masks = (limits.next_masks if onward else limits.masks)(self.tokens, positions).to(logits.device)
        masks = masks if ids is None else masks[:, ids]
        # Of drafts from a part of the vocabulary none may be possible; they are refused later.
        return masks | ~masks.any(-1, keepdim=True)

    def _drawn_again(self, position: int) -> tuple[int, Tensor | None]:
        """The token of a position that another of this pass has made impossible, from what the model said of it."""
        limits, said = self.row.limits, self._said.get(position)
        assert limits is not None, "nothing is limited"
        [mask] = limits.masks(self.tokens, [position])
        logits = None if said is None else said.masked_fill(~mask.to(said.device), -torch.inf)
        if logits is None or bool((logits == -torch.inf).all()):
            return int(mask.int().argmax()), None
        drawn = predict(logits[None], [self.row.canvas_draw(position)], never=self.mask)
        return int(drawn.token[0]), logits

    def fill(self) -> None:
        """Write what a constraint leaves no choice about."""
        for position, token in () if self.row.limits is None else self.row.limits.forced(self.tokens):
            if position < len(self.tokens):
                self.tokens[position] = token
                self.row.note(position, token, None)

    def splice(self, start: int, stop: int, count: int) -> None:
        """So many open positions in place of those from `start` to `stop`, which a gap holds; what follows moves."""
        assert len(self.row.tokens) <= start, "what is final never moves"
        moved = count - (stop - start)
        self.tokens[start:stop] = [self.mask] * count
        self.end += moved
        self.given = frozenset(position + moved * (position >= stop) for position in self.given)
        for gap in self.row.gaps:
            gap.start += moved * (gap.start >= stop)
            gap.stop += moved * (gap.stop >= stop)

    def cut(self, end: int) -> None:
        """Nothing stands from `end` on, not even an open position."""
        del self.tokens[end:]

    def put(self, position: int, answer: Answer) -> None:
        """Commit the one token of an answer where a text is written from left to right; it is not final yet."""
        raw = self._raw.pop(position, None)
        self.write(position, answer.tokens[0], answer.source(0) if raw is None else raw)

    def append(self, answer: Answer, count: int) -> None:
        """The first `count` tokens of an answer stand behind the final text and are final, too."""
        begin = len(self.row.tokens)
        self.tokens[begin:] = answer.tokens[:count]
        if self.row.wants_logits:
            for index in range(count):
                raw = self._raw.pop(begin + index, None)
                self.row.note(begin + index, answer.tokens[index], answer.logits[index] if raw is None else raw)
        self.release(begin + count)

    def extend(self) -> int:
        """Tokens that have to follow the final text are final, too; how many."""
        limits, begin = self.row.limits, len(self.row.tokens)
        if limits is None:
            return 0
        found = dict(limits.forced(self.row.tokens))
        del self.tokens[begin:]
        while len(self.tokens) in found:
            self.tokens.append(found[len(self.tokens)])
        self.release(len(self.tokens))
        return len(self.tokens) - begin

    def reopen(self, position: int) -> None:
        """Take a committed token back."""
        assert len(self.row.tokens) <= position < self.end, "what is final never changes"
        self.tokens[position] = self.mask

    def release(self, end: int) -> None:
        """Everything before `end` is final, up to the answer's own end."""
        final = self.tokens[: min(end, self.end)]
        assert self.mask not in final[self.prompt :], "a final position is open"
        self.row.tokens[:] = final

    def release_committed(self) -> None:
        """Everything before the first open position is final."""
        end = len(self.row.tokens)
        while end < self.end and self.tokens[end] != self.mask:
            end += 1
        self.release(end)

    def finish(self) -> None:
        """The answer ends here, whatever its length."""
        self.row.done = True

    def whole(self, wanted: Sequence[int]) -> Segment:
        """All of it in one segment that sees itself both ways."""
        return self.part(range(len(self.tokens)), wanted)

    def part(
        self,
        positions: Sequence[int],
        wanted: Sequence[int] = (),
        *,
        causal: bool = False,
        behind: tuple[tuple[int, int], ...] = (),
        groups: Sequence[int] | None = None,
        tokens: Sequence[int] | None = None,
    ) -> Segment:
        """A segment of these positions.

        :param wanted: positions, not indices, whose logits the pass returns.
        :param tokens: a whole canvas, in place of this one.
        """
        index = {position: number for number, position in enumerate(positions)}
        tokens = self.tokens if tokens is None else tokens
        return Segment(
            self.row.handle,
            [tokens[position] for position in positions],
            list(positions),
            noisy=True,
            causal=causal,
            behind=behind,
            wanted=[index[position] for position in wanted],
            groups=groups,
        )

    def noisy(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        behind: tuple[tuple[int, int], ...] = (),
        conditioning: Tensor | None = None,
    ) -> Segment:
        """A segment of tokens that stand on no canvas; all of them are wanted, and see one another both ways."""
        return Segment(
            self.row.handle,
            tokens,
            positions,
            noisy=True,
            causal=False,
            behind=behind,
            wanted=range(len(tokens)),
            conditioning=conditioning,
        )

    def confidence(self, position: int) -> float | None:
        """How probable the model called what stands at a position, or what it would put there; None if nobody knows."""
        if self.tokens[position] == self.mask:
            return self.sure.get(position)
        logprob = self.row.said_at(position, self.tokens[position]).logprob
        return self.sure.get(position) if logprob is None else math.exp(logprob)

    def tentative(self) -> tuple[int | None, ...]:
        """What stands behind the final tokens, None where open."""
        behind = self.tokens[len(self.row.tokens) : self.shown]
        return tuple(None if token == self.mask else token for token in behind)
