"""What a program yields and what it is sent.

A program is a generator. It yields a :class:`Pass`: what to forward, and what it wants to know
of it. It is sent an :class:`Answer` for each of its :class:`Ask`; it may ask again about the same
pass, by yielding asks alone, before it yields the next pass. So each mode reads like the loop of its
paper, while the engine forwards any number of rows together and answers their questions together.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from functools import partial
from typing import TypeAlias
from typing import TypeVar

from torch import Tensor

from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Predictions
from dllm_plugins.prediction import probability_of


@dataclass(frozen=True, slots=True)
class Ask:
    """What a program wants to know of N positions.

    :param of: which they are: the wanted positions of this segment of the pass, by its index, or hidden
        states [N, width] that an earlier answer held.
    :param draws: how a token is drawn at each; called when the pass has been made, because noise may be keyed on
        it. None: nothing is drawn. The mask id never is.
    :param left: int64 [N, 2], known tokens; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`.
    :param logits: whether the logits are wanted, too; without, they may never be built.
    :param shortlist: whether tokens may be drawn from a cheap part of the vocabulary: drafts that are verified.
    :param positions: the canvas positions it is about; None for those that the segment tells. No constraint limits
        what is said where there is none.
    :param onward: whether what stands behind a position does not count there, as where one writes from left to right.
    """

    of: int | Tensor = 0
    draws: Callable[[], Sequence[Draw]] | None = None
    left: Tensor | None = None
    logits: bool = False
    shortlist: bool = False
    positions: Sequence[int] | None = None
    onward: bool = False


#: The logits and nothing else.
LOGITS = Ask(logits=True)
#: The logits as the model gives them, whatever a constraint allows: the program limits what it makes of them.
UNLIMITED = Ask(logits=True, positions=())


def frontier(row: Row, also: int = 0, *, onward: bool = True) -> Ask:
    """What is asked of the position right behind the final text, and of `also` more behind that.

    Their noise is keyed on the position alone, so that a draft is accepted when it equals the token drawn here.
    """
    positions = range(len(row.tokens), len(row.tokens) + 1 + also)
    return Ask(draws=lambda: row.draws(positions), logits=row.wants_logits, positions=positions, onward=onward)


@dataclass(frozen=True)
class Answer:
    """What an :class:`Ask` is answered; what was not asked for is not there.

    :param hidden: of its positions, [N, width].
    :param whole: what was said of these positions and perhaps of others, if tokens were drawn.
    :param rows: which part of that is this one's.
    :param raw: logits [N, V] if nothing was drawn.
    """

    hidden: Tensor
    whole: Predictions | None = None
    rows: slice = field(default_factory=partial(slice, None))
    raw: Tensor | None = None

    @property
    def _predictions(self) -> Predictions:
        assert self.whole is not None, "tokens were not asked for"
        return self.whole

    @property
    def drawn(self) -> bool:
        """Whether tokens were drawn."""
        return self.whole is not None

    @property
    def token(self) -> Tensor:
        """The drawn tokens, int64 [N]."""
        return self._predictions.token[self.rows]

    @cached_property
    def tokens(self) -> list[int]:
        """The same as a list."""
        found: list[int] = self.token.tolist()
        return found

    @property
    def probability(self) -> Tensor:
        """The model's probability of each drawn token at temperature 1, the mask id among the rest; float32 [N]."""
        return self._predictions.probability[self.rows]

    def coarse_probability(self) -> Tensor:
        """The same in the logits' own dtype, by a softmax in it where there are logits; on the CPU."""
        if self.has_logits:
            return probability_of(self.logits, self.token).cpu()
        return self.probability.to("cpu", self.hidden.dtype)

    @property
    def entropy(self) -> Tensor:
        """Of each position's distribution in nats, float32 [N]."""
        return self._predictions.entropy[self.rows]

    @property
    def margin(self) -> Tensor:
        """The largest probability's lead over the second, float32 [N]."""
        return self._predictions.margin[self.rows]

    @property
    def has_logits(self) -> bool:
        """Whether the logits are there."""
        return self.raw is not None or (self.whole is not None and self.whole.logits is not None)

    @property
    def logits(self) -> Tensor:
        """What the tokens were drawn from, or would be, [N, V]."""
        if self.raw is not None:
            return self.raw
        assert self._predictions.logits is not None, "logits were not asked for"
        return self._predictions.logits[self.rows]

    def source(self, index: int) -> Tensor | None:
        """What one token was drawn from, [V], where logits are there."""
        return self.logits[index] if self.has_logits else None


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over one row.

    :param segments: what is forwarded; each is a call of its own unless it names an
        earlier one in `behind`.
    :param kind: what the pass counts as in the statistics.
    :param release: forget the held keys first.
    :param freeze: how many tokens of the first segment join the prefix afterwards.
    :param hold: indices into the first segment whose keys are held afterwards in place of
        those held so far; this is what makes a cache approximate.
    :param keep: how many tokens of the first segment of the pass before this one join the
        prefix first: for programs that know it only once they have its answers.
    :param rewind: of the prefix only so many positions stay first: for programs that take back what they had cached.
    :param asks: what is wanted of it; the logits of every segment's wanted positions if None.
    """

    segments: tuple[Segment, ...]
    kind: str = "predict"
    release: bool = False
    freeze: int = 0
    hold: Sequence[int] | None = None
    keep: int = 0
    rewind: int | None = None
    asks: tuple[Ask, ...] | None = None

    @property
    def forwarded(self) -> int:
        """How many positions it forwards; of another model's, once the pass was made."""
        return sum(len(one.tokens) if one.guest is None else one.guest.rows for one in self.segments)


Returned = TypeVar("Returned")
#: Further asks about the pass just made.
Asks: TypeAlias = tuple[Ask, ...]
#: A part of a program: yields passes, or asks about the last one; is sent an answer for each ask; returns its result.
Dialogue: TypeAlias = Generator[Pass | Asks, list[Answer], Returned]
Program: TypeAlias = Dialogue[None]


def of_logits(logits: Tensor) -> Answer:
    """An answer that holds these logits [N, V] and nothing else, such as those that guidance has changed."""
    return Answer(logits, raw=logits)
