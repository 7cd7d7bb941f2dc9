"""The distribution over whole answers that a commit rule induces on the solvable model.

Not by sampling: all canvases a rule can reach are carried along with their probabilities,
every pass over every draw of every open position, through the rule's own `decide`. Canvases
that agree, in what the rule remembers too, are merged. A rule that draws noise of its own is
averaged over many draws of it. What remains is exact but for rounding (and, for those
rules, the average), so even tiny errors of a rule can be told from none.

:func:`sampled` runs the same functions on many canvases at once with random draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import inverse
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import needs_of
from dllm_plugins.rules.view import Seen
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.chain import sequence_number
from dllm_plugins.training.rows import Canvases
from dllm_plugins.training.rows import Crowd
from dllm_plugins.training.rows import alike
from dllm_plugins.training.rows import joined
from dllm_plugins.training.rows import mapped

#: Canvases in one call of a rule.
_ROWS = 50_000


@dataclass(frozen=True)
class Trial:
    """A rule and its options on a chain behind a prompt; one block of `length` positions, temperature above 0.

    :param blind: show the rule the largest probability at each position in place of the drawn
        token's, so that its choice cannot depend on what was drawn.
    """

    chain: Chain
    rule: CommitRule
    config: SamplingConfig
    length: int
    prompt: tuple[int, ...] = (0,)
    blind: bool = False

    def start(self, count: int) -> Canvases:
        """Canvases where all is open."""
        return Canvases(torch.full((count, self.length), self.chain.vocabulary), torch.ones(count, dtype=torch.float64))

    def logits(self, canvas: Tensor) -> Tensor:
        """What the denoiser says of canvases [R, B]: [R, B, V + 1], the mask last and impossible."""
        prompt = torch.tensor(self.prompt, dtype=torch.int64).expand(len(canvas), -1)
        found = self.chain.posterior(self.chain.evidence(torch.cat([prompt, canvas], 1)))[:, len(self.prompt) :]
        return torch.nn.functional.pad(torch.log(found), (0, 1), value=-torch.inf)

    def rescored(self, rows: Canvases, step: int) -> tuple[Tensor, Canvases]:
        """Logits to draw from, and the rows with what the rule then remembers; row by row, as the engine does."""
        logits = self.logits(rows.canvas)
        if not hasattr(self.rule, "rescore"):
            return logits, rows
        first, group = alike(rows)
        said, states = logits[first], []
        for number, row in enumerate(first.tolist()):
            positions = (rows.canvas[row] == self.chain.vocabulary).nonzero()[:, 0]
            state = mapped(lambda leaf, row=row: leaf[row : row + 1], rows.state)
            said[number, positions], state = self.rule.rescore(
                said[number, positions], positions, step, self.config, state
            )
            states.append(state)
        state = mapped(lambda *leaves: torch.cat(leaves)[group], *states)
        return said[group], replace(rows, state=state)

    def commit(self, rows: Canvases, logits: Tensor, token: Tensor, step: int, noise: tuple[RowNoise, ...]) -> Canvases:
        """The canvases after one pass that drew `token` [R, B] from `logits`."""
        is_open = rows.canvas == self.chain.vocabulary
        view = self._view(rows.canvas, logits, token, is_open, step, noise)
        decision, state = self.rule.decide(view, (self.config,) * len(token), rows.state)
        assert bool((decision <= is_open).all()), f"rule {self.rule.name!r} commits what is not open"
        return Canvases(torch.where(decision, token, rows.canvas), rows.weight, state)

    def _view(
        self, canvas: Tensor, logits: Tensor, token: Tensor, is_open: Tensor, step: int, noise: tuple[RowNoise, ...]
    ) -> CanvasView:
        rows, width = canvas.shape
        found = torch.softmax(logits, -1)
        sure = found.amax(-1) if self.blind else found.gather(-1, token[..., None])[..., 0]
        sure = sure.where(is_open, 0.0)
        flat = logits.flatten(0, 1)
        seen = Seen(torch.arange(len(flat)), token.flatten(), sure.flatten(), flat)
        needs, more = needs_of(self.rule), dict[str, Tensor]()
        for name in needs & {"entropy", "margin"}:
            more[name] = getattr(seen, name)().reshape(rows, width).where(is_open, 0.0)
        if "probabilities" in needs:
            more["probabilities"] = seen.probabilities.reshape(rows, width, -1).where(is_open[..., None], 0.0)
        if "token" in needs:
            more["token"] = token.where(is_open, canvas)
        if "drawn" in needs:
            more["drawn"] = token.where(is_open, 0)
        if "held" in needs:
            more["held"] = torch.zeros(rows, width)
        return CanvasView(
            probability=sure,
            open=is_open,
            committed_now=torch.zeros(rows, dtype=torch.int64),
            step=torch.full((rows,), step),
            noise=noise,
            position=torch.arange(width).expand(rows, -1),
            committed=~is_open,
            **more,
        )


@dataclass(frozen=True)
class Induced:
    """What a rule makes of the chain.

    :param probabilities: float64 [V^length], of every answer.
    :param passes: how many an answer takes on average.
    :param exact: whether there was no noise to average over.
    """

    probabilities: Tensor
    passes: float
    exact: bool

    def distance(self, truth: Tensor) -> float:
        """Total variation: the most by which the probability of any event is wrong."""
        return float((self.probabilities - truth).abs().sum() / 2)


def induced(trial: Trial, *, averaged: int = 50_000, seed: int = 0) -> Induced:
    """The distribution of answers, by following all canvases at once.

    Rules that draw see the same noise for all draws of a canvas: what they decide without
    looking at the tokens is then exactly independent of them.

    :param averaged: for rules that draw: at least so many cases a pass, by repeating each with new noise.
    """
    vocabulary, noisy = trial.chain.vocabulary, _draws_noise(trial)
    found, passes, step = torch.zeros(vocabulary**trial.length, dtype=torch.float64), 0.0, 0
    rows = trial.start(1)
    while len(rows.canvas):
        passes += float(rows.weight.sum())
        logits, rows = trial.rescored(rows, step)
        parts = []
        for cases in _cases(trial, rows, logits, averaged if noisy else 1):
            seed += 1
            crowd = Crowd(seed, cases.stream.tolist(), int(cases.stream.max()) + 1)
            parts.append(trial.commit(cases.rows, cases.logits, cases.token, step, crowd.rows))
        rows = joined(parts)
        done = (rows.canvas != vocabulary).all(1)
        found.index_add_(0, sequence_number(rows.canvas[done], vocabulary), rows.weight[done])
        rows, step = rows.take((~done).nonzero()[:, 0]), step + 1
        assert step <= 8 * trial.length, f"rule {trial.rule.name!r} does not end"
    return Induced(found, passes, not noisy)


def _draws_noise(trial: Trial) -> bool:
    """Whether the rule asks for random numbers in its first pass."""
    logits, rows = trial.rescored(trial.start(1), 0)
    crowd = Crowd(0, [0], 1)
    trial.commit(rows, logits, logits.argmax(-1), 0, crowd.rows)
    return crowd.drawn


@dataclass(frozen=True)
class _Cases:
    """Rows with tokens drawn for them [R, B], the logits those are from, and which noise a rule sees."""

    rows: Canvases
    token: Tensor
    logits: Tensor
    stream: Tensor


def _cases(trial: Trial, rows: Canvases, logits: Tensor, averaged: int) -> Iterator[_Cases]:
    """Every row with every draw of its open positions, at least `averaged` in all; in parts of some size."""
    vocabulary = trial.chain.vocabulary
    log = torch.log_softmax(logits / trial.config.temperature, dim=-1)
    is_open = rows.canvas == vocabulary
    opened = is_open.sum(1)
    repeats = -(-averaged // int((vocabulary**opened).sum()))
    for count in opened.unique().tolist():
        draws = torch.cartesian_prod(*[torch.arange(vocabulary)] * count).reshape(-1, count)
        # A row's cases: every draw, and each of them with every repeat's noise.
        drawn = draws.repeat_interleave(repeats, 0)
        for part in (opened == count).nonzero()[:, 0].split(max(1, _ROWS // len(drawn))):
            index = part.repeat_interleave(len(drawn))
            token = rows.canvas[index]
            token[is_open[index]] = drawn.repeat(len(part), 1).flatten()
            chance = log[index].gather(-1, token[..., None])[..., 0].where(is_open[index], 0.0).sum(1).exp()
            taken = rows.take(index)
            stream = torch.arange(len(index)) // len(drawn) * repeats + torch.arange(len(index)) % repeats
            yield _Cases(replace(taken, weight=taken.weight * chance / repeats), token, logits[index], stream)


def sampled(trial: Trial, samples: int, *, seed: int = 0) -> tuple[Tensor, float]:
    """Answers drawn at random, counted [V^length], and passes per answer."""
    vocabulary = trial.chain.vocabulary
    counts, passes = torch.zeros(vocabulary**trial.length, dtype=torch.int64), 0
    draw = Draw(trial.config.temperature, trial.config.top_k, trial.config.top_p)
    for part in torch.arange(samples).split(_ROWS):
        rows, step = trial.start(len(part)), 0
        while len(rows.canvas):
            passes += len(rows.canvas)
            seed += 1
            logits, rows = trial.rescored(rows, step)
            numbers = RowNoise(seed).uniform(Key(Purpose.CANVAS, step=step), rows.canvas.numel())
            token = inverse(logits, draw, numbers.reshape(rows.canvas.shape))
            rows = trial.commit(rows, logits, token, step, Crowd(seed, range(len(token)), len(token)).rows)
            done = (rows.canvas != vocabulary).all(1)
            counts += torch.bincount(sequence_number(rows.canvas[done], vocabulary), minlength=len(counts))
            rows, step = rows.take((~done).nonzero()[:, 0]), step + 1
    return counts, passes / samples
