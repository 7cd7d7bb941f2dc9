"""What comes out of the engine: Draft, Commit, and at the end Finish or Failure."""

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

from dllm_plugins.errors import DllmError

if TYPE_CHECKING:
    from torch import Tensor

#: Why an answer ended: a stop string, or whoever asked; an end-of-text token, or the sampler itself; `max_new_tokens`;
#: the end of the model's context, which left less room than `max_new_tokens` asks for; of a gap in a template also
#: that it went on with the text behind it.
FinishReason = Literal["stop", "eos", "length", "context", "follows"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an answer in which modes or models take turns: its tokens from `begin` to before `end`, and why."""

    model: str
    mode: str
    begin: int
    end: int
    why: str


@dataclass(frozen=True, slots=True)
class Repair:
    """A token that was changed after it had been written: where, counted from the answer's beginning, and what.

    `old` and `new` are ids, `before` and `after` their texts.
    """

    position: int
    old: int
    new: int
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Repairs:
    """What mode repair did: rounds in which something was reopened, those of them that were taken back, how many tokens
    were looked at and reopened in all of them, and those that are other ones in the end.
    """

    rounds: int = 0
    undone: int = 0
    looked: int = 0
    reopened: int = 0
    changed: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Honest figures of one answer.

    `cached_tokens` of the prompt came from an earlier row's prefix and were not forwarded.
    `useful_tokens` are the tokens of the answer: end-of-text tokens, tokens behind a
    stop string and thrown-away canvas tokens are not counted. `canvas_tokens` are all
    the tokens that were committed. `passes` counts every forward in which the row took
    part, by kind; `rows` are all the positions forwarded in them. `shared_passes` are those in which the row
    shared a call of the model with other rows, where the backend tells. `parts`, with `stats`, are
    seconds of those passes by part (:data:`dllm_plugins.engine.profile.PARTS`), each pass's in full
    however many rows shared it; what lies between passes belongs to no part. `drafts`, in mode
    speculative, are drafts verified and accepted by where they came from, and the open rows among `rows`.
    `route`, in mode auto, says why `mode` was chosen. `model`, of a pair, is the name of the one that answered.
    `stretches`, where modes took turns (alternating, and auto), are the parts of the answer and who wrote each.
    `verdict`, of a puzzle's answer, is what a checker says of it: "right", or what is wrong with it.
    `reasoning_tokens`, of a model that thinks, are those of `useful_tokens` that came before what it said.
    `repairs`, in mode repair, are the tokens that were written and then changed.
    """

    prompt_tokens: int
    cached_tokens: int
    useful_tokens: int
    canvas_tokens: int
    passes: dict[str, int]
    rows: int
    seconds: float
    prefill_seconds: float
    mode: str
    cache: str
    numerics: str
    seed: int | None
    weights: str = ""
    parts: dict[str, float] | None = None
    drafts: dict[str, int] | None = None
    shared_passes: int | None = None
    reasoning_tokens: int | None = None
    route: str | None = None
    model: str | None = None
    stretches: tuple[Stretch, ...] | None = None
    verdict: str | None = None
    repairs: Repairs | None = None

    @property
    def total_passes(self) -> int:
        """Passes of all kinds, prefill included."""
        return sum(self.passes.values())

    @property
    def tokens_per_forward(self) -> float:
        """Useful tokens per pass (TPF)."""
        return self.useful_tokens / self.total_passes if self.total_passes else 0.0

    @property
    def rows_per_token(self) -> float:
        """Rows forwarded per useful token, the prompt's own rows included."""
        return self.rows / self.useful_tokens if self.useful_tokens else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable figures, the derived ones included; what nobody knows is left out."""
        found = asdict(self) | {
            "total_passes": self.total_passes,
            "tokens_per_forward": round(self.tokens_per_forward, 4),
            "rows_per_token": round(self.rows_per_token, 2),
        }
        if not self.weights:
            del found["weights"]
        for name in (
            "drafts",
            "shared_passes",
            "reasoning_tokens",
            "route",
            "model",
            "stretches",
            "verdict",
            "repairs",
        ):
            if found[name] is None:
                del found[name]
        if self.parts is None:
            del found["parts"]
        else:
            found["parts"] = {name: round(seconds, 6) for name, seconds in self.parts.items()}
        return found

    def summary(self) -> str:
        """One line for people."""
        chosen = "" if self.route is None else " (auto)"
        changed = "" if self.repairs is None else f" · {len(self.repairs.changed)} tokens changed"
        verdict = "" if self.verdict is None else f" · {self.verdict}"
        return (
            f"{self.useful_tokens} tokens · {self.total_passes} passes · "
            f"{self.tokens_per_forward:.2f} tokens/pass · {self.rows_per_token:.1f} rows/token · "
            f"{self.seconds:.2f} s · mode {self.mode}{chosen}{changed} · {self.cache} cache{verdict}"
        )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """What the model said of one token of an answer; see docs/logprobs.md for which pass.

    :param token: its id.
    :param logprob: natural logarithm of the softmax of the model's own logits, at temperature 1; None for a token that
        was never drawn: one that the prompt gave, or the sampler put there.
    :param top: the likeliest ids in its place with theirs, the likeliest first, as many as `logprobs` asks for. Never
        the mask id.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GapDraft:
    """A gap of a template, as a pass left it.

    :param tokens: all it holds so far, None where open. The first `final` of them never change.
    :param text: what goes on from the text of it that Commits have handed out, like that of a :class:`Draft`.
    :param guesses: `tokens` with what the pass said at open positions but did not commit, where the mode tells.
    :param confidences: of `guesses`, as in a :class:`Draft`.
    """

    tokens: tuple[int | None, ...]
    final: int
    text: str
    guesses: tuple[int | None, ...]
    confidences: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """The whole canvas behind the committed tokens, as a pass left it.

    `tokens` are committed but may change; None where open. `guesses` are the same with what
    the pass said at open positions but did not commit, where the mode tells; `text` reads so.
    `rest` is what the canvas holds behind the answer's room: the end of its last block, a suffix.
    `committed` is the text that Commits have handed out so far; `text` goes on from there.
    `confidences`, if the request asks for logprobs, are the model's probabilities of `guesses`, at temperature 1, from
    the pass that committed or guessed each; None where nothing was said.
    `gaps` are those of a template, one by one; the rest then goes on to the end of the last.
    `reasoning` is what `text` is, of an answer's thinking.
    """

    row: int
    step: int
    tokens: tuple[int | None, ...]
    text: str
    guesses: tuple[int | None, ...] = ()
    rest: tuple[int | None, ...] = ()
    confidences: tuple[float | None, ...] = ()
    committed: str = ""
    gaps: tuple[GapDraft, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Final tokens and text, in order; they never change afterwards.

    `text` may lag behind `tokens`: the engine holds back half a character and whatever
    could become a stop string. `logprobs`, if the request asks for them, are those of the pass that committed each
    token.
    `gaps` is the new text of each gap of a template. `reasoning` is new text that the model thinks before it says
    something, if the request tells the two apart; `text` is then what it says.
    """

    row: int
    step: int
    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    gaps: tuple[str, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Filled:
    """What a gap of a template holds in the end, and why it ended there; "length": its room is used.

    `logprobs`, if asked for, is one for each token. `old` is the text that it replaces; None if nothing stood there.
    """

    tokens: tuple[int, ...]
    text: str
    reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()
    old: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The row is done. `tokens` and `text` are the whole answer, cut where it ends.

    `stop_token` is the end-of-text token behind the answer if `reason` is "eos".
    `rest` is what stood on the canvas behind the answer when it ended, None where open.
    `gaps` is what the gaps of a template hold; `tokens` and `text` then go from the first gap to the end of the last.
    `logits`, if the request asked for them, holds for each token (the stop token
    included) what it was drawn from: float [V], before temperature and truncation; None for
    a token that was never drawn, such as one the prompt gave or the sampler put there.
    `logprobs`, if asked for, is one for each of those tokens, from the pass that `logprobs_at` names.
    `reasoning` is what the model thought before it said `text`, if the request tells the two apart; `tokens` hold both.
    """

    row: int
    step: int
    reason: FinishReason
    tokens: tuple[int, ...]
    text: str
    usage: Usage
    stop_token: int | None = None
    logits: "tuple[Tensor | None, ...] | None" = field(default=None, compare=False, repr=False)
    rest: tuple[int | None, ...] = field(default=(), compare=False, repr=False)
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, compare=False, repr=False)
    gaps: tuple[Filled, ...] = ()
    reasoning: str = ""

    def cut(self, length: int, text: str, thought: str = "") -> "Finish":
        """The same answer ended earlier: its first `length` tokens, which read `text` behind `thought`.

        Of both as much is kept as the answer begins with: neither half a character nor what lay
        behind a stop string.
        """
        thinks = self.usage.reasoning_tokens
        usage = replace(
            self.usage,
            useful_tokens=min(length, self.usage.useful_tokens),
            reasoning_tokens=None if thinks is None else min(length, thinks),
            verdict=None if self.usage.verdict is None else "unfinished",
        )
        return replace(
            self,
            reason="stop",
            tokens=self.tokens[:length],
            text=_common(self.text, text),
            reasoning=_common(self.reasoning, thought),
            usage=usage,
            stop_token=None,
            logits=None if self.logits is None else self.logits[:length],
            logprobs=None if self.logprobs is None else self.logprobs[:length],
        )


def _common(one: str, other: str) -> str:
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(known for known, _ in same)


@dataclass(frozen=True, slots=True)
class Failure:
    """The row has ended without an answer; what was committed of it still holds.

    :param error: for whoever asked: what the row itself raised, if that is an error of ours, else a
        :class:`~dllm_plugins.errors.PassError` with what happened as its cause.
    """

    row: int
    step: int
    error: DllmError


Event = Draft | Commit | Finish
