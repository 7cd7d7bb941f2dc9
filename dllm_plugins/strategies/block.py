"""Cached-prefix block diffusion: only the newest canvas is denoised.

The frontier, the position right behind the final text, is always predicted by a clean
row; open rows cover the `block_length` positions behind it, and a commit rule decides
which of them to settle. Contiguous settled tokens are final: they are forwarded once
more as clean rows together with the next canvas (freeze fused with predict).
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_plugins.canvas import Evidence
from dllm_plugins.canvas import Row
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.prediction import predict
from dllm_plugins.processes.base import NoiseProcess
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import check_parameters
from dllm_plugins.rules.base import needs_of
from dllm_plugins.rules.view import Positions
from dllm_plugins.rules.view import Seen
from dllm_plugins.rules.view import make_view
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import check_options
from dllm_plugins.strategies.base import choose_rule
from dllm_plugins.strategies.base import stack


@dataclass(slots=True)
class _Canvas:
    """What one row's pass said about its open positions, while they are being settled."""

    row: Row
    first: int
    hidden: Tensor
    places: list[int]
    step: int
    token: list[int]
    probability: list[float]
    logits: dict[int, Tensor]
    settled_now: int = 1

    def known(self, place: int) -> int:
        """The token at `place`, -1 if it is open."""
        if place < len(self.row.tokens):
            return self.row.tokens[place]
        return self.row.settled.get(place, -1)


@dataclass(frozen=True, slots=True)
class _Settling:
    """A token about to be settled, and its left neighbour's (-1 if that is open)."""

    row: Row
    place: int
    token: int
    left: int


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
        windows = [self._window(row, spec) for row in rows]
        opened = [
            [place for place in window if place not in row.settled] for row, window in zip(rows, windows, strict=True)
        ]
        frontier = predict(
            denoiser.logits(stack(parts[0] for parts in hidden)), [row.draw(len(row.tokens)) for row in rows]
        )
        tokens = frontier.token.tolist()
        if spec.chain:
            settling = [
                _Settling(row, len(row.tokens), token, row.tokens[-1]) for row, token in zip(rows, tokens, strict=True)
            ]
            self._reopen(settling, denoiser)
        canvases = []
        for row, parts, window, places, token, drawn_from in zip(
            rows, hidden, windows, opened, tokens, frontier.logits, strict=True
        ):
            row.note(len(row.tokens), drawn_from)
            denoiser.freeze(row.handle, len(row.tokens) - row.frozen)
            row.frozen = len(row.tokens)
            row.settle(row.frozen, token)
            if places and token not in row.stop_ids:
                canvases.append(
                    _Canvas(row, window.start, parts[-1], places, row.step, [0] * len(places), [0.0] * len(places), {})
                )
        self._settle(canvases, denoiser)

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
        left = torch.tensor([[item.token, item.left] for item in doubtful])
        draws = [item.row.canvas_draw(item.place + 1, past.step) for item, past in zip(doubtful, found, strict=True)]
        drawn = predict(denoiser.logits(torch.stack([past.hidden for past in found]), left), draws)
        for item, token in zip(doubtful, drawn.token.tolist(), strict=True):
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
                if pending[id(canvas)]:
                    pending[id(canvas)] = self._decide(canvas, denoiser)

    def _predict(self, wanted: list[tuple[_Canvas, list[int]]], denoiser: Denoiser) -> None:
        hidden = torch.cat([canvas.hidden[indices] for canvas, indices in wanted])
        places = [(canvas, canvas.places[index]) for canvas, indices in wanted for index in indices]
        left = torch.tensor([[canvas.known(place - 1), canvas.known(place - 2)] for canvas, place in places])
        draws = [canvas.row.canvas_draw(place) for canvas, place in places]
        drawn = predict(self._rescored(wanted, denoiser.logits(hidden, left)), draws)
        tokens, probabilities = iter(drawn.token.tolist()), iter(drawn.probability.tolist())
        logits = iter(drawn.logits)
        for canvas, indices in wanted:
            for index in indices:
                canvas.token[index], canvas.probability[index] = next(tokens), next(probabilities)
                canvas.logits[index] = next(logits)
                if denoiser.spec.chain and canvas.token[index] == canvas.known(canvas.places[index] - 1):
                    canvas.probability[index] = 0.0

    def _rescored(self, wanted: list[tuple[_Canvas, list[int]]], logits: Tensor) -> Tensor:
        """Logits as the rows' rules change them before tokens are drawn."""
        parts = []
        for (canvas, indices), own in zip(wanted, logits.split([len(indices) for _, indices in wanted]), strict=True):
            row, rule = canvas.row, choose_rule(canvas.row.config, self.rules)
            if hasattr(rule, "rescore"):
                place = torch.tensor([canvas.places[index] - row.prompt for index in indices])
                own, row.rule_state = rule.rescore(own, place, canvas.step, row.config, row.rule_state)  # noqa: PLW2901
            parts.append(own)
        return torch.cat(parts)

    @staticmethod
    def _view(canvas: _Canvas, rule: CommitRule, width: int) -> CanvasView:
        """What the rule sees: the open rows, filled up to the block's length."""
        row, needs, padding = canvas.row, needs_of(rule), width - len(canvas.places)
        logits = torch.stack([canvas.logits[index] for index in range(len(canvas.places))]) if needs else torch.empty(0)
        seen = Seen(
            torch.arange(len(canvas.places)), torch.tensor(canvas.token), torch.tensor(canvas.probability), logits
        )
        known = [canvas.known(place) for place in canvas.places]
        positions = Positions(
            tokens=known + [-1] * padding,
            open=[token < 0 for token in known] + [False] * padding,
            settled=[False] * width,
            place=[place - row.prompt for place in canvas.places] + [-1] * padding,
        )
        return make_view(positions, seen, needs, settled_now=canvas.settled_now, step=canvas.step, noise=row.noise)

    def _decide(self, canvas: _Canvas, denoiser: Denoiser) -> list[int]:
        """Settle what the rule accepts; returns the indices to predict again."""
        row, rule, spec = canvas.row, choose_rule(canvas.row.config, self.rules), denoiser.spec
        view = self._view(canvas, rule, row.config.block_length or spec.block_length)
        decision, row.rule_state = rule.decide(view, (row.config,), row.rule_state)
        chosen = [index for index in range(len(canvas.places)) if decision[0, index]]
        waits = {
            index
            for index in chosen
            if spec.chain and canvas.places[index] - 1 in {canvas.places[other] for other in chosen}
        }
        for index in chosen:
            if index not in waits:
                place, token, left = canvas.places[index], canvas.token[index], canvas.known(canvas.places[index] - 1)
                if spec.chain:
                    self._reopen([_Settling(row, place, token, left)], denoiser)
                    if place > len(row.tokens):
                        row.evidence[place] = Evidence(canvas.hidden[index], row.step, left)
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
