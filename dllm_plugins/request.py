"""What goes into the engine."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

from dllm_plugins.config import SamplingConfig

if TYPE_CHECKING:
    from dllm_plugins.asked import Asked
    from dllm_plugins.decoding.steering import Processor
    from dllm_plugins.kept_prefixes import KeptPrefixes
    from dllm_plugins.noise import RowNoise
    from dllm_plugins.template import Gap
    from dllm_plugins.text.puzzles import Puzzle
    from dllm_plugins.text.thinking import Thinking
    from dllm_plugins.text.tokenizer import TextTokenizer
    from dllm_plugins.tools.choosing import Choosing


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Where an answer is a part of a longer one: constraints and penalties are about all of that.

    :param begun: so many tokens at the end of the prompt belong to it.
    :param behind: so many may follow.
    """

    begun: int
    behind: int


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to continue it.

    :param tokens: prompt token ids, chat template included. Some samplers fill mask ids inside
        it; the answer then begins at the first one and includes what stands between them.
    :param config: sampling options.
    :param suffix: tokens behind the gap that `max_new_tokens` opens, for models that can fill it in.
    :param template: what stands behind `tokens`, in place of an answer of `max_new_tokens`: runs of fixed token ids
        and gaps. Fixed tokens never change, and nothing is written behind the last part. Events then tell of the gaps,
        too; stop ids and stop strings end the gap they are written in, if it is bounded, and nothing else.
    :param stop_ids: token ids that end the answer; None for the model's own.
    :param prefixes: where the row looks for a cached prefix and leaves its own; None for the engine's.
    :param noise: the random numbers to use in place of those a seed gives, for example recorded ones.
    :param tokenizer: what reads and writes text, where the engine's own knows none; None for the engine's.
    :param processors: as transformers' logits processors: called with the ids so far, int64 [1, N], and float32 logits
        [1, V] of the next token, for modes that write from left to right; also asked about drafts.
    :param slice: most tokens of the prompt that a pass forwards, so that rows in company need not wait for a long one;
        blocks stay whole. Modes that forward the whole text in every pass take it at once, and so do those in which
        the model reads what it said before. None for all of it.
    :param logits: hand out the logits each token of the answer was drawn from.
    :param thinking: how the answer marks what it thinks before it says something, which events then tell apart; stop
        strings and a constraint are about what it says. None for an answer that is text as it stands.
    :param asked: what a loaded model makes `tokens`, `template` and `thinking` of, where none is here: such a request
        goes to a server.
    :param choosing: how to find out whether the answer calls a tool, in modes whose prefixes are kept; the config's
        constraint then says what it is where it need not. None if there is nothing to find out.
    :param part: what the answer is a part of; None for one that is whole.
    :param otherwise: of a pair: given options, the same request as its other model is asked it. None: that is asked
        with this one's tokens.
    :param puzzle: what lays the answer out, knows where it is whole and says whether it is right; None for a text.
    """

    tokens: Sequence[int]
    config: SamplingConfig = field(default_factory=SamplingConfig)
    stop_ids: frozenset[int] | None = None
    prefixes: "KeptPrefixes | None" = None
    logits: bool = False
    suffix: Sequence[int] = ()
    template: "Sequence[Sequence[int] | Gap]" = ()
    noise: "RowNoise | None" = None
    tokenizer: "TextTokenizer | None" = None
    processors: "Sequence[Processor]" = ()
    slice: int | None = None
    thinking: "Thinking | None" = None
    asked: "Asked | None" = None
    choosing: "Choosing | None" = None
    part: AnswerPart | None = None
    otherwise: "Callable[[SamplingConfig], Request] | None" = None
    puzzle: "Puzzle | None" = None
