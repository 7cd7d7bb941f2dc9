"""What modes that verify drafts have in common: the pass that verifies them, and what is accepted of it.

Drafts stand on the canvas behind the final text. They are accepted while they equal what the clean rows themselves
draw, with noise keyed on the position, so neither what is drafted nor where ever shows in the text.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import frontier
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.drafting.acceptance import FORCED
from dllm_plugins.drafting.acceptance import SOURCES
from dllm_plugins.drafting.acceptance import Proposal
from dllm_plugins.drafting.planner import LONGEST_CHAIN
from dllm_plugins.drafting.planner import Plan
from dllm_plugins.processes.base import NoiseProcess


class Speculation:
    """One row whose drafts are verified.

    :param process: says what an open position holds.
    :param plan: how many drafts are verified, and where open rows stand that make new ones.
    :ivar groups: how many open rows stand behind a candidate, by how many drafts are accepted in it.
    :ivar forced: how many tokens a constraint has put behind the accepted ones.
    """

    def __init__(self, process: NoiseProcess, canvas: Canvas, plan: Plan, spec: ModelSpec) -> None:
        self.process = process
        self.canvas = canvas
        self.row = canvas.row
        self.plan = plan
        self.spec = spec
        self.frozen = canvas.row.frozen
        self.verified: list[Proposal] = []
        self.groups: Mapping[int, int] = {}
        self.forced = 0
        self._keep = 0
        sources = SOURCES if canvas.row.limits is None else (*SOURCES, FORCED)
        names = [f"{source}_{what}" for source in sources for what in ("verified", "accepted")]
        # Modes that take turns in an answer count on.
        canvas.row.drafts = dict.fromkeys([*names, "open_rows"], 0) | (canvas.row.drafts or {})

    def verify(self, kind: str, denoised: Sequence[Proposal]) -> Pass:
        """Clean rows (what is not cached, then drafts) and a group behind each candidate the plan says.

        :param denoised: the drafts that the denoiser has for what follows the final text.
        """
        row, canvas = self.row, self.canvas
        drafts = self._possible(self.plan.drafts(row.tokens, denoised))
        first = len(row.tokens) - self.frozen - 1
        layout = self.plan.layout(drafts, first + 1, row.remaining, row.company)
        self.verified, self.groups = drafts[: layout.verified], layout.groups
        canvas.tokens[len(row.tokens) :] = [draft.token for draft in self.verified]
        clean, positions = canvas.tokens[self.frozen :], range(self.frozen, len(canvas.tokens))
        segments = [Segment(row.handle, clean, positions, wanted=range(first, len(clean)))]
        for accepted, size in self.groups.items() if self.spec.mixes else ():
            segments.append(self.group(len(row.tokens) + accepted, size, ((0, first + accepted + 1),)))
        asks = (frontier(row, len(self.verified)), *(Ask(of) for of in range(1, len(segments))))
        return Pass(tuple(segments), kind, keep=self._keep, asks=asks)

    def group(self, position: int, size: int, behind: tuple[tuple[int, int], ...] = ()) -> Segment:
        """Open rows that draft what follows the token at `position`, whose own row is not needed."""
        return self.canvas.noisy(self.process.noised(size, self.spec), range(position, position + size), behind)

    def accept(self, answer: Answer) -> int:
        """Take over the drafts that equal what was said, and the token behind them; how many drafts."""
        count, final = 0, len(self.row.tokens)
        for index, draft in enumerate(self.verified):
            self.count(f"{draft.source}_verified")
            if count == index and draft.token == answer.tokens[index]:
                self.count(f"{draft.source}_accepted")
                count += 1
        if self.spec.mixes:
            self.count("open_rows", sum(self.groups.values()))
        self.canvas.append(answer, count + 1)
        self.forced = self.canvas.extend()
        self.plan.learn(self.verified, count)
        self._keep, self.frozen = final + count - self.frozen, final + count
        return count

    def apart(self, segment: Segment, ask: Ask) -> Pass:
        """A pass that drafts and verifies nothing; what was accepted joins the prefix first."""
        keep, self._keep = self._keep, 0
        return Pass((segment,), "draft", keep=keep, asks=(ask,))

    def count(self, what: str, number: int = 1) -> None:
        """So many more, of what the statistics tell of drafts."""
        assert self.row.drafts is not None, "set at the beginning"
        self.row.drafts[what] += number

    def _possible(self, drafts: list[Proposal]) -> list[Proposal]:
        """Drafts up to the first that a constraint refuses, and what has to follow them."""
        limits, tokens = self.row.limits, list(self.row.tokens)
        if limits is None:
            return drafts
        begin = len(tokens)
        tokens += [draft.token for draft in drafts]
        allowed = limits.next_masks(tokens, range(begin, len(tokens))) if drafts else ()
        count = next((place for place, mask in enumerate(allowed) if not mask[drafts[place].token]), len(drafts))
        found, kept = dict(limits.forced(tokens[: begin + count])), drafts[:count]
        while len(kept) < LONGEST_CHAIN and begin + len(kept) in found:
            kept.append(Proposal(found[begin + len(kept)], FORCED, 1.0))
        return kept
