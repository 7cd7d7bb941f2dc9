"""The state of one request while it is decoded."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.said import said_of
from dllm_plugins.decoding.steering import Steering
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.events import FinishReason
from dllm_plugins.events import Repairs
from dllm_plugins.events import Stretch
from dllm_plugins.events import TokenLogprob
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import Draw


@dataclass(slots=True)
class OpenGap:
    """Where a gap of a template stands on the canvas.

    :param stop: the first position behind it; programs that move what follows move it along.
    :param room: tokens it may have.
    :param bounded: whether it may have fewer.
    :param constraint: what it is held to, if it is by itself.
    :param accepts: whether it may hold a text; None if it may hold any.
    :param grows: where gaps grow and shrink, whether it may do so as it likes, and not only where it has to.
    :param reason: why a program has ended it before its room was used.
    :param old: the text that it replaces.
    :param head: fixed text with which its tokens begin.
    """

    start: int
    stop: int
    room: int
    bounded: bool
    constraint: Constraint | None = None
    accepts: Callable[[str], bool] | None = None
    grows: bool = True
    reason: FinishReason | None = None
    old: str | None = None
    head: str = ""

    @property
    def positions(self) -> range:
        """Its positions."""
        return range(self.start, self.stop)


@dataclass
class Row:
    """One request in the engine.

    `tokens[:frozen]` is the prefix, whose keys and values are cached; `tokens[frozen:]` is
    final but not cached yet. What stands behind is on its program's canvas.

    :param number: the engine's name for the row, used in events.
    :param handle: the denoiser's name for it.
    :param mask: the id of an open position.
    :param requested: how many new tokens were asked for; `max_new_tokens` of the config is what there is room for.
    :param prompt: number of prompt tokens, the first ones of `tokens`.
    :param stop_ids: token ids that end the answer.
    :param cached: prompt tokens whose prefix was taken over from an earlier row.
    :param given: what the answer begins with, if the prompt has holes; the mask id where open.
    :param suffix: given tokens behind the answer (infilling).
    :param gaps: of a template, as they stand on the canvas now.
    :param cut: given a gap and its first tokens, how many of them it keeps if their text ends it: at a stop string, or
        where it goes on with what follows. None if it goes on.
    :param stopped: given the first tokens of the answer, how many of them stand before a stop string; None before none.
    :param repairs: what was reopened of what had been written; None where nothing ever is.
    :param done: the sampler has ended the answer, whatever its length.
    :param cache: what served the row: approximate once keys were held that a whole pass would
        have computed anew; None for the model's own kind.
    :param logits: what each generated token was drawn from, by position, if asked for.
    :param said: what the model said of each generated token when it was committed, by position, if asked for.
    :param costs: tells what passes of its model cost, measured when asked for the first time; None if nobody knows.
    :param company: requests and rows of others in the last pass; together they make a further row cheaper or dearer.
    :param drafts: how many drafts were verified and accepted by where they came from, and how many open rows made
        some; None where nothing is drafted.
    :param stretches: where modes take turns, who has written which part; each ends where the next one begins.
    :param limits: what the answer is held to; None if it may be anything.
    :param steering: what is done to logits before anything is drawn; None for nothing.
    :param error: what the row raised in the pass under way; the engine then ends it, and nobody else.
    """

    number: int
    handle: int
    tokens: list[int]
    prompt: int
    config: SamplingConfig
    noise: RowNoise
    vocabulary: int
    stop_ids: frozenset[int]
    requested: int
    frozen: int = 0
    step: int = 0
    cached: int = 0
    logits: dict[int, Tensor] | None = None
    said: dict[int, TokenLogprob] | None = None
    mask: int = -1
    given: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    gaps: tuple[OpenGap, ...] = ()
    cut: Callable[[OpenGap, Sequence[int]], int | None] = lambda _gap, _tokens: None
    stopped: Callable[[Sequence[int]], int | None] = lambda _tokens: None
    repairs: Repairs | None = None
    done: bool = False
    cache: Literal["exact", "approximate"] | None = None
    costs: Callable[[], Costs | None] = lambda: None
    company: tuple[int, int] = (0, 0)
    drafts: dict[str, int] | None = None
    stretches: list[Stretch] | None = None
    limits: Limits | None = None
    steering: Steering | None = None
    error: Exception | None = None

    @property
    def remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.config.max_new_tokens - (len(self.tokens) - self.prompt)

    @property
    def end(self) -> int:
        """The first position the answer may not use."""
        return self.prompt + self.config.max_new_tokens

    @property
    def generated(self) -> list[int]:
        """Final tokens of the answer so far."""
        return self.tokens[self.prompt :]

    def draw(self, position: int) -> Draw:
        """How the token at `position` is drawn; the same for drafts and for AR decoding.

        By Gumbel numbers, so that a draft is the verified token wherever the two distributions are alike.
        """
        config = self.config
        if config.temperature == 0:
            return GREEDY
        noise = self.noise.gumbel(Key(Purpose.NEXT, position), self.vocabulary)
        return Draw(config.temperature, config.top_k, config.top_p, noise)

    def draws(self, positions: Sequence[int]) -> list[Draw]:
        """How the tokens at several positions are drawn."""
        return [self.draw(position) for position in positions]

    def canvas_draw(self, position: int, step: int | None = None) -> Draw:
        """How an open position is drawn in a pass (this one, if not given): its key holds the step too."""
        config = self.config
        if config.temperature == 0:
            return GREEDY
        key = Key(Purpose.CANVAS, position, self.step if step is None else step)
        return Draw(config.temperature, config.top_k, config.top_p, uniform=float(self.noise.uniform(key, 1)))

    def canvas_draws(self, positions: Sequence[int], step: int | None = None) -> list[Draw]:
        """How open positions are drawn in a pass, this one if not given."""
        return [self.canvas_draw(position, step) for position in positions]

    @property
    def limited(self) -> bool:
        """Whether logits are changed before anything is drawn."""
        return self.limits is not None or self.steering is not None

    @property
    def wants_logits(self) -> bool:
        """Whether somebody wants to know what tokens are drawn from."""
        return self.logits is not None or self.said is not None

    def note(self, position: int, token: int, logits: Tensor | None) -> None:
        """Remember what the token at `position` was drawn from, if that was asked for; logits [V], None if it was not.

        What stood there before is forgotten.
        """
        if self.logits is not None:
            self.logits.pop(position, None)
            if logits is not None:
                self.logits[position] = logits.clone()
        if self.said is not None:
            self.said.pop(position, None)
            if logits is not None:
                self.said[position] = said_of(logits, token, self.config.logprobs or 0, self.mask)

    def said_at(self, position: int, token: int) -> TokenLogprob:
        """What the model said of the token at `position` when it was committed."""
        found = (self.said or {}).get(position)
        # It may have been committed, reopened, and drafted over since.
        return found if found is not None and found.token == token else TokenLogprob(token, None)
