"""A stretch of a row's answer that the other model of a pair writes: what it is asked, and what it has said so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import DllmError
from dllm_plugins.events import TokenLogprob


@dataclass(eq=False, slots=True)
class Guest:
    """Ids are those of the row's own model throughout.

    :param tokens: all that is final: the prompt, `prompt` tokens, and the answer so far.
    :param config: how it decodes: a mode of the other model, and how many of its tokens the stretch has at most.
    :param behind: tokens that the answer may have behind the stretch.
    :param stop_ids: token ids that end the answer; None for the other model's own.
    :param said: what is final of the stretch, and `logprobs` for each, where they are asked for.
    :param drafted: what stands behind that for now; None where open.
    :param ended: why it has ended, once it has: "length", "eos" where the answer ends there, or in words why not.
    :param error: what the other model raised.
    :param rows: positions that it has forwarded in the last pass.
    """

    tokens: Sequence[int]
    prompt: int
    config: SamplingConfig
    behind: int
    stop_ids: frozenset[int] | None = None
    said: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    drafted: tuple[int | None, ...] = ()
    ended: str | None = None
    error: DllmError | None = None
    rows: int = 0
