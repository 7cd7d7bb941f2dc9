"""What goes into the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from dllm_plugins.config import SamplingConfig


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how to continue it.

    :param tokens: prompt token ids, chat template included.
    :param config: sampling options.
    :param stop_ids: token ids that end the answer; None for the model's own.
    """

    tokens: Sequence[int]
    config: SamplingConfig = field(default_factory=SamplingConfig)
    stop_ids: frozenset[int] | None = None
