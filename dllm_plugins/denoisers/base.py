"""The contract of a denoiser: (prefix, canvas) -> what it says at each wanted position."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from typing import Any
from typing import Literal
from typing import Protocol
from typing import cast

from torch import Tensor

from dllm_plugins.denoisers.guest import Guest
from dllm_plugins.messages import Message
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Predictions


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the engine must know of a model.

    :param vocabulary: number of token ids a prediction ranges over.
    :param mask_id: id of an open position; at least `vocabulary` if it is virtual.
    :param context: most positions a row may hold.
    :param stop_ids: ids that end an answer, unless the request names others.
    :param block_length: default number of open positions.
    :param draft_length: default number of drafts a speculative pass verifies.
    :param modes: what the model can serve, its default first.
    :param samplers: the sampler behind a mode, where it has another name.
    :param shifted: whether the row at p - 1 predicts position p while a canvas is denoised.
    :param holds: whether an approximate cache can be asked for.
    :param holds_prefix_only: whether that can only be what stands before everything forwarded anew.
    :param mixes: whether clean and open rows share a call of the model; where not, a mode that verifies and
        drafts at once makes a pass of each.
    :param refused: modes its family has, but this backend does not serve, and why.
    :param eos_id: the id of the end of text, where the checkpoint names one.
    :param pad_id: the id of padding, where the checkpoint names one.
    :param draft_head: whether :meth:`Denoiser.logits` uses known tokens on the left.
    :param ids: token ids its config names, such as `delete_token_id`, by their keys.
    :param sampling: options of its own sampler that the checkpoint sets; a request comes first.
    :param stops: strings that end an answer, unless the request names stop ids of its own.
    :param cache: "exact", "approximate", or "none" if every pass forwards the whole sequence.
    :param numerics: "row-invariant" if a position's result cannot depend on the rest of the pass, else
        "approximate"; followed by "int8" where weights are quantised.
    :param batched: whether rows share calls of the model, and products of its head, even where a row's last bits then
        depend on its company; those that are row-invariant share them anyway.
    :param attention: who sees whom in a text of which everything is known, as layouts of families call it; empty where
        its tokens are not predicted then.
    :param others: of a pair, the modes that its other model decodes in, and what the engine must know of that.
    :param target: of a pair, the name of the model that decodes in all other modes.
    :param weights: what is multiplied, where the backend tells: a dtype, "int8", or the blocks of a GGUF file ("Q4_1").
    """

    name: str
    vocabulary: int
    mask_id: int
    context: int
    stop_ids: frozenset[int]
    block_length: int
    draft_length: int
    modes: tuple[str, ...]
    draft_head: bool
    cache: Literal["exact", "approximate", "none"]
    numerics: Literal["row-invariant", "approximate", "row-invariant int8", "approximate int8"]
    samplers: Mapping[str, str] = field(default_factory=dict)
    shifted: bool = False
    holds: bool = False
    holds_prefix_only: bool = False
    mixes: bool = True
    refused: Mapping[str, Message | str] = field(default_factory=dict)
    ids: Mapping[str, int] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    eos_id: int | None = None
    pad_id: int | None = None
    weights: str = ""
    attention: str = ""
    batched: bool = False
    others: Mapping[str, "ModelSpec"] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of one request in one pass.

    Every segment sees the whole frozen prefix. `behind` lists what else it sees: pairs
    (index of an earlier segment of the same request in this pass, how many of its first
    tokens). Inside itself a causal segment sees leftwards, another one both ways.

    :param row: handle from :meth:`Denoiser.open_row`.
    :param tokens: ids, the mask id where open.
    :param positions: rotary positions, one per token.
    :param noisy: open positions; the others run the unchanged base.
    :param wanted: indices into `tokens` whose hidden states the pass returns.
    :param groups: block numbers of the tokens; a token then sees those of its own and of
        smaller numbers, in place of `causal`.
    :param conditioning: float [len(tokens), V], the last pass's logits, for models that read them.
    :param apart: per token, the one token it does not see, an index into the segment named last in
        `behind`; -1 where it sees them all. llama.cpp and DiffusionGemma cannot do it.
    :param draws: of a pair (:mod:`dllm_plugins.pairs`) alone: the segment is for its drafter. `tokens` are what has
        become final since the row's last segment of this kind, `positions` where they stand in the text, and it asks
        what follows, so many tokens drawn like this. In place of hidden states the pass returns float64 [n, 2], ids and
        the drafter's probabilities of them, with n at most `len(draws)`. Nothing of it is frozen by the caller.
    :param guest: of a pair alone: the other model writes on in this pass, and says here what came of it. The segment
        holds no tokens, and nothing of it is frozen.
    """

    row: int
    tokens: Sequence[int]
    positions: Sequence[int]
    noisy: bool = False
    causal: bool = True
    behind: tuple[tuple[int, int], ...] = ()
    wanted: Sequence[int] = field(default=())
    groups: Sequence[int] | None = None
    conditioning: "Tensor | None" = None
    apart: Sequence[int] | None = None
    draws: Sequence[Draw] | None = None
    guest: Guest | None = None


class PrefixState(Protocol):
    """The cached prefix of a row that has ended, `length` positions; a backend reads only its own."""

    @property
    def length(self) -> int:
        """How many positions it holds."""


class Denoiser(Protocol):
    """A model behind the engine. Not thread-safe: one caller at a time."""

    spec: ModelSpec

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""

    def close_row(self, row: int) -> PrefixState:
        """End a row and hand out its prefix; dropping that gives the memory back.

        Closing twice is an error of the caller.
        """

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass. Returns, per segment, the final hidden states [len(wanted), hidden].

        Segments of one row stand together. The keys and values of each row's *first*
        segment stay pending until :meth:`freeze`; those of all others are dropped.
        """

    def freeze(self, row: int, count: int) -> None:
        """The first `count` tokens of the row's first segment of the last pass join the prefix."""

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Keep these keys of the row's first segment of the last pass, in place of those held so far.

        They stand where a full pass would compute them anew: approximate.

        :raises OptionError: if this backend only has exact caches.
        """

    def release(self, row: int) -> None:
        """Forget the held keys."""

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary] for hidden states [N, hidden] of wanted positions.

        :param left: int64 [N, 2], the tokens one and two places left of each position, -1
            where unknown. None for clean rows, whose hidden state knows them already.
        """

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """Like :meth:`logits`, perhaps over a shortlist of ids (int64 [V']) that is cheaper to score.

        Only for drafts that are verified afterwards.
        """


class FullDenoiser(Denoiser, Protocol):
    """What a denoiser may offer beside the minimum, and what holds where it does not.

    Whoever inherits from this has the defaults; for any other denoiser :func:`completed` fills them in.
    """

    def unmask(self, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None) -> Predictions | None:
        """What is said at N positions without building logits; hidden [N, width], `left` as in :meth:`logits`.

        None if these draws need logits. That must depend on the draws alone, so that a row is
        decoded alike in any company.
        """
        return None

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        """Calls of the model that a row took part in in the last pass, by kind.

        More than one where a backend cannot mix kinds in a call, see :attr:`ModelSpec.mixes`.

        :param kind: of the whole pass.
        """
        return {kind: 1}

    def shared(self, row: int) -> bool | None:
        """Whether the row shared a call of the model with others in the last pass; None where nobody knows."""
        return None

    def timings(self) -> Mapping[str, float]:
        """Seconds its forwards have taken by part since this was asked last, such as `linear` and `attention`.

        Of the parts it names, `head` is left out: the engine times the head itself.
        """
        return {}

    def form(self) -> str | None:
        """What its passes cost depends on this, the machine and the number of threads; None if nobody need measure it.

        The model's name, its weights and what computes them. Where it is told, modes that choose how much to
        forward have the costs measured once (:mod:`dllm_plugins.drafting.kept`).
        """
        return None

    def keys_bytes(self, rows: Sequence[int]) -> int | None:
        """The most memory that keys and values of rows take which come to hold so many positions each, in bytes.

        None where nobody knows.
        """
        return None

    def close(self) -> None:
        """Give back at once what is held outside Python; nothing happens the second time."""
        return None


#: What :class:`FullDenoiser` adds.
OFFERS = ("unmask", "rounds", "shared", "timings", "form", "keys_bytes", "close")


def completed(denoiser: Denoiser) -> FullDenoiser:
    """The denoiser itself if it offers everything, else the same with the defaults of :class:`FullDenoiser`."""
    whole = all(hasattr(denoiser, name) for name in OFFERS)
    return cast(FullDenoiser, denoiser if whole else _Completed(denoiser))


class _Completed:
    def __init__(self, inner: Denoiser) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # What copies ask before there is an inner one.
            raise AttributeError(name)
        if name in OFFERS and not hasattr(self._inner, name):
            return partial(getattr(FullDenoiser, name), self)
        return getattr(self._inner, name)
