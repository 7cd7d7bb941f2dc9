"""Mode `diffusion` of the default model between fixed texts: gaps are filled with what follows them in view.

The fixed text behind a gap is forwarded in every pass as clean rows at its true positions: what it says
depends on the text before it, so keys kept from an earlier pass would be stale. Open rows see it; a bounded
gap, whose end nobody knows yet, has it right behind the window, where training put it.

Clean rows see nothing behind them, the frontier's among them. So the frontier is also predicted by two open
rows, one of which sees what follows: its word is the clean row's, changed by what that makes of a token,

    log p(token) = log p_clean(token) + log p_open(token | what follows) - log p_open(token),

which is Bayes' rule if the open rows are right. Tokens that the clean row thinks far less likely than its
first are left out, since the difference says little of them. Where nothing follows, the clean row decides alone.

In training an open row saw no clean row at its left neighbour. Here the last token is not frozen until
another stands behind it, and the two rows do not see it; the draft head knows it all the same.

Where a bounded gap has used its room, the base says for each of its tokens how likely it is that what
follows comes next, and the gap ends where that is likeliest. So its tokens are not final before.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import UNLIMITED
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import frontier
from dllm_plugins.decoding.row import OpenGap
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.block_diffusion import BlockDiffusion
from dllm_plugins.modes.block_diffusion import Talk
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import without

#: Tokens behind a gap that are in view: as many as in training.
IN_VIEW = 64
#: Tokens of what follows that tell where a gap ends.
TELLING = 8
#: So many tokens that a gap has in common with what follows are no chance.
REPEATED = 4
#: How much less likely than the likeliest a token may be to the clean row.
PLAUSIBLE = 0.05
#: Ends of a gap that are weighed in one pass.
_TOGETHER = 16

#: What a segment sees of earlier ones; see :attr:`Segment.behind`.
_Seen = tuple[tuple[int, int], ...]


def weighed(clean: Tensor, seeing: Tensor, blind: Tensor) -> Tensor:
    """Logits [1, V] of the frontier from those of the clean row and of the two open rows, each [1, V]."""
    said = torch.log_softmax(clean.float(), dim=-1)
    change = torch.log_softmax(seeing.float(), dim=-1) - torch.log_softmax(blind.float(), dim=-1)
    plausible = said >= said.max() + torch.tensor(PLAUSIBLE).log()
    return torch.where(plausible, said + change, -torch.inf)


class Infilling(BlockDiffusion):
    """One row; its gaps one after another.

    :param gap: the one that is filled now.
    """

    gap: OpenGap

    def begin(self, gap: OpenGap) -> None:
        """Go on to this gap; everything before it is final."""
        self.gap, self.evidence = gap, {}
        self.suppressed = () if gap.bounded else tuple(self.row.stop_ids)
        self.canvas.release(gap.start)

    @property
    def tip(self) -> int:
        """The first open position of the gap."""
        tokens, mask = self.canvas.tokens, self.canvas.mask
        return next((position for position in self.gap.positions if tokens[position] == mask), self.gap.stop)

    @property
    def stop(self) -> int:
        """The gap's end."""
        return self.gap.stop

    def release(self) -> None:
        """Tokens of a gap that may yet end before them are not final."""
        if not (self.gap.bounded and self.follows()):
            self.canvas.release(self.tip)

    def follows(self) -> list[int]:
        """The fixed tokens right behind the gap."""
        following = [gap.start for gap in self.row.gaps if gap.start >= self.gap.stop]
        return self.canvas.tokens[self.gap.stop : min(following, default=None)]

    def written(self) -> list[int]:
        """What stands in the gap without an open position between, up to a token that ends a bounded one."""
        written, stops = self.canvas.tokens[self.gap.start : self.tip], self.row.stop_ids if self.gap.bounded else ()
        end = next((place for place, token in enumerate(written, 1) if token in stops), None)
        return written[:end]

    @property
    def ended(self) -> bool:
        """Whether a bounded gap ends before its room is used: by a stop token, by its text, or by what follows."""
        written = self.written()
        if not self.gap.bounded or not written:
            return False
        return written[-1] in self.row.stop_ids or self._repeats(written) or self._cut(written) is not None

    def _repeats(self, written: Sequence[int]) -> bool:
        beginning = self.follows()[:REPEATED]
        if len(beginning) < REPEATED or list(written[-REPEATED:]) != beginning:
            return False
        return self._may_end(len(written) - REPEATED)

    def _cut(self, written: Sequence[int]) -> int | None:
        """How many tokens are kept of a gap that its text ends; None if it goes on."""
        return self.row.cut(self.gap, written[:-1] if written[-1] in self.row.stop_ids else written)

    def _may_end(self, count: int) -> bool:
        """Whether a constraint lets the gap end behind so many of its tokens."""
        limits = self.row.limits
        return limits is None or limits.may_end(self.canvas.tokens, self.gap.start + count)

    def plan(self, kind: str, window: range) -> Pass:
        """Clean rows, committed rows of the window, what follows, two open rows of the frontier, and the others."""
        row, tokens, tip = self.row, self.canvas.tokens, self.tip
        clean = self._clean()
        count = len(clean.tokens)
        segments, seen = [clean], _Seen(((0, count),))
        before = _Seen(((0, count - 1 if row.frozen or count > 1 else count),))
        committed = self.canvas.committed(window)
        if committed:
            segments.append(Segment(row.handle, [tokens[position] for position in committed], committed, behind=seen))
            seen, before = (*seen, (1, len(committed))), (*before, (1, len(committed)))
        behind, places = self._in_view(window)
        limited = replace(LOGITS, positions=[tip])
        asks: tuple[Ask, ...] = (limited if behind or self.suppressed else frontier_of(self),)
        if behind:
            segments.append(Segment(row.handle, behind, places, behind=seen))
            following = (len(segments) - 1, len(behind))
            seen = (*seen, following)
            left = torch.tensor([[tokens[tip - 1], tokens[tip - 2] if tip > 1 else -1]])
            for sees in ((*before, following), before):
                segments.append(self.canvas.noisy(self.process.noised(1, self.spec), [tip - 1], sees))
                asks = (*asks, replace(limited, of=len(segments) - 1, left=left))
        opened = self.canvas.open(window)
        if opened:
            noise = self.process.noised(len(opened), self.spec)
            segments.append(self.canvas.noisy(noise, [position - 1 for position in opened], seen))
            asks = (*asks, Ask(len(segments) - 1))
        return Pass(tuple(segments), kind, freeze=self._freezing(), asks=asks)

    def _clean(self, wanted: Sequence[int] | None = None) -> Segment:
        """What is not frozen up to the frontier; its last row is wanted if no others are."""
        positions = range(self.row.frozen, self.tip)
        tokens = self.canvas.tokens[positions.start : positions.stop]
        return Segment(self.row.handle, tokens, positions, wanted=wanted or (len(tokens) - 1,))

    def _freezing(self) -> int:
        """All that is final, but the token before the frontier, which open rows there must not see."""
        return max(min(len(self.row.tokens), self.tip - 1) - self.row.frozen, 0)

    def _in_view(self, window: range) -> tuple[list[int], list[int]]:
        """The fixed tokens behind the gap that are seen from it, and where they stand as far as is known."""
        places = [position for position in sorted(self.canvas.given) if position >= self.gap.stop][:IN_VIEW]
        early = self.gap.stop - (self.tip + 1 + self.length) if self.gap.bounded else 0
        return [self.canvas.tokens[position] for position in places], [place - max(early, 0) for place in places]

    def said(self, answers: Sequence[Answer]) -> Answer:
        """The frontier's token, from what the clean row and perhaps two open rows said of it."""
        clean, *others = answers
        if clean.drawn:
            return clean
        logits = weighed(clean.logits, *(other.logits for other in others)) if others else clean.logits
        never = [token for token in (*self.suppressed, self.canvas.mask) if token < logits.shape[-1]]
        logits = without(logits, never)
        return Answer(clean.hidden, predict(logits, self.row.draws([self.tip])))

    def close(self) -> Talk:
        """The gap is filled: find its end if it is bounded, and go on behind it."""
        gap, written = self.gap, self.written()
        if gap.bounded and written:
            most = len(written) - (written[-1] in self.row.stop_ids)
            count, gap.reason = most, None if most == len(gap.positions) else "eos"
            cut = self._cut(written)
            if cut is not None:
                count = cut
            elif self._repeats(written):
                count, gap.reason = count - REPEATED, "follows"
            elif self.follows() and most > 1:
                count = yield from self._best_end(written[:most])
                gap.reason = gap.reason if count == most else "follows"
            # What is final already, because nothing follows, stays; whoever reads it stops there himself.
            start = max(gap.start + count, len(self.row.tokens))
            self.canvas.splice(start, gap.stop, 0)

    def _best_end(self, written: Sequence[int]) -> Dialogue[int]:
        """After how many of its tokens what follows is likeliest to come next, to the base."""
        following, first = self.follows()[:TELLING], self.gap.start - 1 - self.row.frozen
        ends = [count for count in range(1, len(written) + 1) if self._may_end(count)]
        if len(ends) == 1:
            return ends[0]
        scores: list[float] = []
        for place in range(0, len(ends), _TOGETHER):
            counts = ends[place : place + _TOGETHER]
            clean = self._clean([first + count for count in counts])
            segments, asks = [clean], [UNLIMITED]
            for count in counts if len(following) > 1 else ():
                segments.append(self._continued(following, count, first + count + 1))
                asks.append(replace(UNLIMITED, of=len(segments) - 1))
            nexts, *others = yield Pass(tuple(segments), "join", asks=tuple(asks))
            for index in range(len(counts)):
                rows = [nexts.logits[index : index + 1], *(other.logits for other in others[index : index + 1])]
                logits = torch.cat(rows)
                said = torch.log_softmax(logits.float(), dim=-1)
                scores.append(float(said.gather(1, torch.tensor(following)[:, None].to(said.device)).sum()))
        return ends[max(range(len(scores)), key=scores.__getitem__)]

    def _continued(self, following: Sequence[int], count: int, seen: int) -> Segment:
        """What follows, right behind the first `count` tokens of the gap."""
        begin, length = self.gap.start + count, len(following) - 1
        positions = range(begin, begin + length)
        return Segment(self.row.handle, following[:-1], positions, behind=((0, seen),), wanted=range(length))


def frontier_of(this: Infilling) -> Ask:
    """What is asked of the frontier where nothing follows."""
    return replace(frontier(this.row, onward=False), draws=lambda: this.row.draws([this.tip]))


def fill(this: Infilling) -> Program:
    """Gap after gap, pass after pass."""
    canvas, kind = this.canvas, "prefill"
    if not canvas.row.gaps:
        canvas.row.gaps = (OpenGap(canvas.prompt, canvas.end, canvas.end - canvas.prompt, bounded=True),)
    for gap in canvas.row.gaps:
        this.begin(gap)
        while this.tip < gap.stop and not this.ended:
            window = this.window()
            positions = canvas.open(window)
            answers = yield this.plan(kind, window)
            hidden = answers.pop().hidden if positions else None
            yield from this.read(this.said(answers), hidden, positions)
            kind = "fused"
        yield from this.close()
        canvas.release(gap.stop)
    if kind == "prefill":
        # A constraint has decided all of it, but a program has a pass.
        yield Pass((this._clean(),), kind, asks=())
