"""The canvas a sampler writes on: one row's whole sequence, with the mask id where it is open."""

import math
from collections.abc import Iterable
from collections.abc import Sequence

from torch import Tensor

from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.restraints import Restraints
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.prediction import without


class Canvas:
    """Prompt, answer and suffix of one row.

    :param tokens: all of it; open positions hold `mask`.
    :param prompt: where the answer begins.
    :param end: the first position the answer may not use.
    :param given: positions behind the prompt that hold fixed tokens, which stay.
    :param shown: where drafts end; None for all of it.
    :param guesses: what the last pass said at positions that it left open, where a program tells.
    :param restraints: what may stand on it.
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
        self.restraints = Restraints(row, spec.mask_id)

    def open(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` that are open."""
        return [position for position in positions if self.tokens[position] == self.mask]

    def committed(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` that hold a token which was not given."""
        return [position for position in self.free(positions) if self.tokens[position] != self.mask]

    def free(self, positions: Iterable[int]) -> list[int]:
        """Those of `positions` whose token was not given."""
        return [position for position in positions if position not in self.given]

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
        if token != self.mask and not self.restraints.allows(self.tokens, position, token):
            token, logits = self.restraints.drawn_again(self.tokens, position)
        self.tokens[position] = token
        self.row.note(position, token, logits)
        self.fill()

    def held(self, positions: Sequence[int], logits: Tensor) -> Tensor:
        """Logits [N, V] that a program has made of others, with constraint, penalties and bans."""
        return self.restraints.limited(self.tokens, positions, logits)

    def fill(self) -> None:
        """Write what a constraint leaves no choice about."""
        for position, token in self.restraints.forced(self.tokens):
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
        self.write(position, answer.tokens[0], self.restraints.before_penalties(position, answer.source(0)))

    def append(self, answer: Answer, count: int) -> None:
        """The first `count` tokens of an answer stand behind the final text and are final, too."""
        begin = len(self.row.tokens)
        self.tokens[begin:] = answer.tokens[:count]
        if self.row.wants_logits:
            for index, position in enumerate(range(begin, begin + count)):
                said = self.restraints.before_penalties(position, answer.logits[index])
                self.row.note(position, answer.tokens[index], said)
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
