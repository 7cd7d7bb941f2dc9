"""Cached-prefix block diffusion: only the newest canvas is denoised.

The frontier, the position right behind the final text, is always predicted by a clean
row; open rows cover the `block_length` positions behind it, and a commit rule decides
which of them to settle. Contiguous settled tokens are final: they are forwarded once
more as clean rows together with the next canvas (freeze fused with predict).
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dllm_plugins.canvas import Evidence
from dllm_plugins.canvas import Row
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.failing import blaming
from dllm_plugins.prediction import predict
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import check_parameters
from dllm_plugins.rules.base import needs_of
from dllm_plugins.rules.base import rescores
from dllm_plugins.rules.base import wants_logits
from dllm_plugins.rules.view import Positions
from dllm_plugins.rules.view import Seen
from dllm_plugins.rules.view import make_view
from dllm_plugins.samplers.steps import Counts
from dllm_plugins.samplers.steps import passes_of_a_block
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import ask_each
from dllm_plugins.strategies.base import asks_of
from dllm_plugins.strategies.base import check_options
from dllm_plugins.strategies.base import choose_rule
from dllm_plugins.strategies.base import frontier
from dllm_plugins.unmasking import Answer
from dllm_plugins.unmasking import Ask
from dllm_plugins.unmasking import answers
from dllm_plugins.unmasking import ask_all

_NONE = torch.empty(0)


@dataclass(slots=True)
class _Canvas:
    """What one row's pass said about its n open positions, while they are being settled.

    :param rule: the row's.
    :param needs: what the rule reads.
    :param keeps: whether the rule or the request wants logits.
    :param probability: float32 [n], once something was said; `entropy` and `margin` likewise, where the rule
        reads them.
    :param logits: [V] by index, where they are wanted.
    """

    row: Row
    rule: CommitRule
    needs: frozenset[str]
    keeps: bool
    hidden: Tensor
    places: list[int]
    step: int
    token: list[int]
    probability: Tensor = _NONE
    entropy: Tensor = _NONE
    margin: Tensor = _NONE
    logits: dict[int, Tensor] = field(default_factory=dict)
    settled_now: int = 1

    def known(self, place: int) -> int:
        """The token at `place`, -1 if it is open."""
        if place < len(self.row.tokens):
            return self.row.tokens[place]
        return self.row.settled.get(place, -1)

    def known_before(self, distance: int) -> list[int]:
        """The tokens that far left of each position, -1 where open."""
        tokens, settled = self.row.tokens, self.row.settled
        final = len(tokens)
        places = [place - distance for place in self.places]
        return [tokens[place] if place < final else settled.get(place, -1) for place in places]

    def take(self, indices: list[int], said: Answer, left: list[int] | None) -> None:
        """Take in what was said at some of the positions.

        :param left: tokens left of all positions; one that repeats its own counts as impossible, to be drawn again.
        """
        where = None if len(indices) == len(self.places) else torch.tensor(indices)
        self.probability = _with(self.probability, where, said.probability)
        if "entropy" in self.needs:
            self.entropy = _with(self.entropy, where, said.entropy)
        if "margin" in self.needs:
            self.margin = _with(self.margin, where, said.margin)
        for number, index in enumerate(indices):
            token = self.token[index] = said.tokens[number]
            if self.keeps:
                self.logits[index] = said.logits_at(number)
            if left is not None and token == left[index]:
                self.probability[index] = 0.0


def _with(values: Tensor, where: Tensor | None, new: Tensor) -> Tensor:
    """Values [n] with new ones at the indices `where`, all if None; float32 on the CPU."""
    new = new.detach().to("cpu", torch.float32)
    return new.clone() if where is None else values.index_copy(0, where, new)


@dataclass(frozen=True, slots=True)
class _Settling:
    """A token about to be settled, and its left neighbour's (-1 if that is open)."""

    row: Row
    place: int
    token: int
    left: int

    def again(self, past: Evidence) -> Ask:
        """What its right neighbour was settled by, asked again with this token known."""
        draw = self.row.canvas_draw(self.place + 1, past.step)
        return Ask(past.hidden[None], [draw], torch.tensor([[self.token, self.left]]), past.logits)


class BlockStrategy:
    """Mode `diffusion`: block sampling with an exact prefix cache and a commit rule."""

    name = "diffusion"
    keeps_prefix = True
    holes = False
    suffix = False

    def __init__(self, rules: Mapping[str, CommitRule], process: NoiseProcess) -> None:
        self.rules = rules
        self.process = process
        own = frozenset({"block_length", "rule", "rule_options"})
        self.options = own.union(*(rule.options for rule in rules.values()))

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """See :class:`~dllm_plugins.strategies.base.Strategy`."""
        rule = choose_rule(config, self.rules)
        check_options(f"{self.name}, rule {rule.name}", config, rule.options | {"block_length", "rule", "rule_options"})
        check_parameters(rule, config)
        passes_of_a_block(Counts.BLOCK, config, config.block_length or spec.block_length)

    def _window(self, row: Row, spec: ModelSpec) -> range:
        """Positions behind the frontier that belong to the canvas."""
        begin = len(row.tokens) + 1
        end = min(begin + (row.config.block_length or spec.block_length), row.end)
        stops = [place for place, token in row.settled.items() if token in row.stop_ids]
        return range(begin, min([end, *stops]))

    def plan(self, row: Row, spec: ModelSpec) -> Plan:
        """Clean rows not cached yet, settled rows of the canvas, open rows."""
        run = row.tokens[row.frozen :]
        segments = [Segment(row.handle, run, range(row.frozen, len(row.tokens)), wanted=(len(run) - 1,))]
        behind: tuple[tuple[int, int], ...] = ((0, len(run)),)
        window = self._window(row, spec)
        settled = [place for place in window if place in row.settled]
        if settled:
            tokens = [row.settled[place] for place in settled]
            segments.append(Segment(row.handle, tokens, settled, behind=behind))
            behind += ((1, len(settled)),)
        places = [place for place in window if place not in row.settled]
        if places:
            segments.append(
                Segment(
                    row.handle,
                    self.process.noised(len(places), spec),
                    [place - 1 for place in places],
                    noisy=True,
                    causal=False,
                    behind=behind,
                    wanted=range(len(places)),
                )
            )
        return Plan(tuple(segments), "fused" if row.step else "prefill")

    def read(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> None:
        """Freeze, settle the frontier, then settle what the rule accepts."""
        spec = denoiser.spec
        opened = [[place for place in self._window(row, spec) if place not in row.settled] for row in rows]
        asking = [(row, partial(frontier, row, parts[0])) for row, parts in zip(rows, hidden, strict=True)]
        found = ask_each(denoiser, asking)
        if spec.chain:
            settling = [
                _Settling(row, len(row.tokens), said.tokens[0], row.tokens[-1])
                for row, said in zip(rows, found, strict=True)
                if said is not None
            ]
            self._reopen(settling, denoiser)
        canvases = []
        for row, parts, places, said in zip(rows, hidden, opened, found, strict=True):
            if said is None or row.error is not None:
                continue
            with blaming(row):
                if row.logits is not None:
                    row.note(len(row.tokens), said.logits_at(0))
                denoiser.freeze(row.handle, len(row.tokens) - row.frozen)
                row.frozen = len(row.tokens)
                row.settle(row.frozen, said.tokens[0])
                if places and said.tokens[0] not in row.stop_ids:
                    canvases.append(self._canvas(row, parts[-1], places))
        self._settle(canvases, denoiser)
        for row in rows:
            row.guesses = {}
        for canvas in canvases:
            canvas.row.guesses = dict(zip(canvas.places, canvas.token, strict=True))

    def _canvas(self, row: Row, hidden: Tensor, places: list[int]) -> _Canvas:
        rule = choose_rule(row.config, self.rules)
        keeps = row.logits is not None or wants_logits(rule)
        return _Canvas(row, rule, needs_of(rule), keeps, hidden, places, row.step, [0] * len(places))

    @staticmethod
    def _reopen(settling: Sequence[_Settling], denoiser: Denoiser) -> None:
        """Reopen a right neighbour that does not follow from a token about to be settled.

        It was settled while that place was open or held another token, and often is the
        very word that the place now gets. So it is drawn again, with the same noise and
        its left neighbour known; the same token twice is reopened in any case and left to
        a clean row.
        """
        doubtful = [
            item
            for item in settling
            if item.place + 1 in item.row.evidence and item.row.evidence[item.place + 1].left != item.token
        ]
        if not doubtful:
            return
        found = [item.row.evidence.pop(item.place + 1) for item in doubtful]
        asking = [(item.row, partial(item.again, past)) for item, past in zip(doubtful, found, strict=True)]
        for item, said in zip(doubtful, ask_each(denoiser, asking), strict=True):
            if said is None:
                continue
            token = said.tokens[0]
            if item.row.settled[item.place + 1] != token or token == item.token:
                del item.row.settled[item.place + 1]

    def _settle(self, canvases: list[_Canvas], denoiser: Denoiser) -> None:
        """Ask the rule until it settles nothing more.

        When it wants two neighbours at once, the right one waits and is predicted again
        knowing the left one: without that, parallel decoding doubles words.
        """
        pending = {id(canvas): list(range(len(canvas.places))) for canvas in canvases}
        while any(pending.values()):
            self._predict([(canvas, pending[id(canvas)]) for canvas in canvases if pending[id(canvas)]], denoiser)
            for canvas in canvases:
                wanted, pending[id(canvas)] = pending[id(canvas)], []
                if wanted and canvas.row.error is None:
                    with blaming(canvas.row):
                        pending[id(canvas)] = self._decide(canvas, denoiser)

    def _predict(self, wanted: list[tuple[_Canvas, list[int]]], denoiser: Denoiser) -> None:
        lefts = [canvas.known_before(1) for canvas, _ in wanted]
        for changed in (False, True):
            own = [place for place, (canvas, _) in enumerate(wanted) if rescores(canvas.rule) is changed]
            made = asks_of([(wanted[place][0].row, partial(self._ask, *wanted[place], lefts[place])) for place in own])
            asks = [(place, ask) for place, ask in zip(own, made, strict=True) if ask is not None]
            if not asks:
                continue
            found = (
                self._rescored([(*wanted[place], ask) for place, ask in asks], denoiser)
                if changed
                else ask_all(denoiser, [ask for _, ask in asks])
            )
            for (place, _), said in zip(asks, found, strict=True):
                canvas, indices = wanted[place]
                if said is not None:
                    with blaming(canvas.row):
                        canvas.take(indices, said, lefts[place] if denoiser.spec.chain else None)

    @staticmethod
    def _ask(canvas: _Canvas, indices: list[int], before: list[int]) -> Ask:
        everywhere, farther = len(indices) == len(canvas.places), canvas.known_before(2)
        return Ask(
            canvas.hidden if everywhere else canvas.hidden[indices],
            canvas.row.canvas_draws(canvas.places if everywhere else [canvas.places[index] for index in indices]),
            torch.tensor([[before[index], farther[index]] for index in indices]),
            canvas.keeps,
        )

    @staticmethod
    def _rescored(wanted: list[tuple[_Canvas, list[int], Ask]], denoiser: Denoiser) -> Sequence[Answer | None]:
        """What is said once the rows' rules have changed the logits; None where a rule failed."""
        lefts = [ask.left for _, _, ask in wanted if ask.left is not None]
        logits = denoiser.logits(torch.cat([ask.hidden for _, _, ask in wanted]), torch.cat(lefts))
        found: list[Answer | None] = []
        parts = logits.split([len(indices) for _, indices, _ in wanted])
        for (canvas, indices, ask), own in zip(wanted, parts, strict=True):
            row, rule = canvas.row, cast(RuleDefaults, canvas.rule)
            found.append(None)
            with blaming(row):
                offsets = torch.tensor([canvas.places[index] - row.prompt for index in indices])
                changed, row.rule_state = rule.rescore(own, offsets, canvas.step, row.config, row.rule_state)
                found[-1:] = answers(predict(changed, ask.draws), [len(indices)])
        return found

    @staticmethod
    def _view(canvas: _Canvas, width: int) -> CanvasView:
        """What the rule sees: the open rows, filled up to the block's length."""
        row, count = canvas.row, len(canvas.places)
        padding = width - count
        logits = torch.stack([canvas.logits[index] for index in range(count)]) if canvas.keeps else _NONE
        token = torch.tensor(canvas.token) if canvas.needs & {"token", "drawn"} else _NONE
        seen = Seen(None, token, canvas.probability, logits, canvas.entropy, canvas.margin)
        known = canvas.known_before(0)
        positions = Positions(
            tokens=known + [-1] * padding,
            open=[token < 0 for token in known] + [False] * padding,
            settled=[False] * width,
            place=[place - row.prompt for place in canvas.places] + [-1] * padding,
        )
        return make_view(
            positions, seen, canvas.needs, settled_now=canvas.settled_now, step=canvas.step, noise=row.noise
        )

    def _decide(self, canvas: _Canvas, denoiser: Denoiser) -> list[int]:
        """Settle what the rule accepts; returns the indices to predict again."""
        row, spec = canvas.row, denoiser.spec
        view = self._view(canvas, row.config.block_length or spec.block_length)
        decision, row.rule_state = canvas.rule.decide(view, (row.config,), row.rule_state)
        chosen: list[int] = decision[0].nonzero()[:, 0].tolist()
        taken = {canvas.places[index] for index in chosen}
        waits = {index for index in chosen if spec.chain and canvas.places[index] - 1 in taken}
        for index in chosen:
            if index not in waits:
                place, token, left = canvas.places[index], canvas.token[index], canvas.known(canvas.places[index] - 1)
                if spec.chain:
                    self._reopen([_Settling(row, place, token, left)], denoiser)
                    if place > len(row.tokens):
                        row.evidence[place] = Evidence(canvas.hidden[index], row.step, left, canvas.keeps)
                if row.logits is not None:
                    row.note(place, canvas.logits[index])
                row.settle(place, token)
                canvas.settled_now += 1
        if not spec.chain or not chosen:
            return []
        just = {canvas.places[index] for index in chosen if index not in waits}
        return [
            index
            for index, place in enumerate(canvas.places)
            if canvas.known(place) < 0 and (index in waits or place - 1 in just)
        ]

    def tentative(self, row: Row, spec: ModelSpec) -> tuple[int | None, ...]:
        """The canvas behind the final text, None where open."""
        return tuple(row.settled.get(place) for place in range(len(row.tokens), self._window(row, spec).stop))
