"""What generate() returns with `return_dict_in_generate=True`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import cast

import torch
from torch import LongTensor
from torch import Tensor
from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers.utils.generic import ModelOutput

from dllm_plugins.events import Finish
from dllm_plugins.events import TokenLogprob
from dllm_transformers.options import pad_id
from dllm_transformers.prefix import PrefixCache


@dataclass
class DiffusionOutput(ModelOutput):
    """Sequences and what they cost.

    :param sequences: int64 [batch, length + longest answer], padded on the right.
    :param scores: with `output_scores`, per answer position float [batch, vocabulary] after
        temperature and truncation; in mode `diffusion`, of the pass that committed the token. They belong to the
        last so many positions of `sequences`: those behind the prompts, or from the first gap of any of them on.
        A token that was never drawn is certain: one that the prompt gave, or the sampler put there, and
        the pad token behind a row's end.
    :param logits: with `output_logits`, the same before temperature and truncation.
    :param cache: hand it to the next call; see :class:`PrefixCache`. None in modes that keep no
        prefix. Also known by the name it had before transformers 5.24, `past_key_values`.
    :param tokens_per_forward: float32 [batch], useful tokens per pass.
    :param usage: per row, the engine's statistics.
    :param finish_reasons: per row "eos", "length", "stop" or, if the model's context ended before `max_new_tokens`
        did, "context".
    :param logprobs: with `logprobs`, per row an entry for each new token, the end of text included; of a prompt with
        gaps, for each token from its first gap on.
    :param parts: with `stats`, per row the seconds of each part of its passes.
    """

    sequences: Tensor | None = None
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    cache: PrefixCache | None = None
    tokens_per_forward: Tensor | None = None
    usage: list[dict[str, Any]] | None = None
    finish_reasons: list[str] | None = None
    logprobs: list[list[TokenLogprob]] | None = None
    parts: list[dict[str, float]] | None = None

    @property
    def past_key_values(self) -> PrefixCache | None:
        """The same as `cache`."""
        return self.cache


def answer_of(finish: Finish) -> list[int]:
    """Generated ids, the end-of-text token included, as generate() returns them."""
    return [*finish.tokens, *([] if finish.stop_token is None else [finish.stop_token])]


def sequences_of(input_ids: Tensor, done: Sequence[Finish], config: GenerationConfig, inside: Sequence[int]) -> Tensor:
    """Prompts and answers, int64 [batch, length], padded on the right.

    :param inside: how many tokens of each answer the prompt holds itself; see :mod:`dllm_transformers.gaps`.
    """
    answers = [answer_of(finish)[count:] for finish, count in zip(done, inside, strict=True)]
    longest = max(len(answer) for answer in answers)
    padded = torch.tensor(
        [answer + [pad_id(config)] * (longest - len(answer)) for answer in answers], dtype=torch.int64
    ).view(len(answers), longest)
    return torch.cat([input_ids, padded.to(input_ids)], dim=1)


def output_of(
    sequences: Tensor,
    length: int,
    done: Sequence[Finish],
    config: GenerationConfig,
    processors: Sequence[LogitsProcessorList],
    cache: PrefixCache | None,
    vocabulary: int,
    inside: Sequence[int],
) -> DiffusionOutput:
    """Everything that was asked for.

    :param length: of the prompts in `sequences`, padding included.
    :param processors: what makes scores of logits, for each row; they see the whole batch, and theirs is kept.
    :param vocabulary: ids that a position's logits range over.
    :param inside: how many tokens of each answer the prompt holds itself.
    """
    starts = [length - count for count in inside]
    logits = _columns(done, sequences, starts, vocabulary) if done[0].logits is not None else None
    scores = None
    if logits is not None and config.output_scores:
        scores = tuple(
            _scored(processors, sequences[:, :place], column) for place, column in enumerate(logits, min(starts))
        )
    usage = [finish.usage.as_dict() for finish in done]
    said = None
    if done[0].logprobs is not None:
        said = [list(finish.logprobs or ()) for finish in done]
    return DiffusionOutput(
        sequences=sequences,
        scores=scores,
        logits=logits if config.output_logits else None,
        cache=cache,
        tokens_per_forward=torch.tensor([finish.usage.tokens_per_forward for finish in done]),
        usage=usage,
        finish_reasons=[str(finish.reason) for finish in done],
        logprobs=said,
        parts=[row["parts"] for row in usage] if "parts" in usage[0] else None,
    )


def _scored(processors: Sequence[LogitsProcessorList], before: Tensor, logits: Tensor) -> Tensor:
    """The scores of a position, float32 [batch, vocabulary]."""
    each = {id(own): own for own in processors}
    found = {key: own(cast(LongTensor, before), logits) for key, own in each.items()}
    return torch.stack([found[id(own)][place] for place, own in enumerate(processors)])


def _columns(done: Sequence[Finish], sequences: Tensor, starts: Sequence[int], vocabulary: int) -> tuple[Tensor, ...]:
    """Per position from the first answer's beginning on float32 [batch, vocabulary].

    :param sequences: int64 [batch, length], padded.
    :param starts: where each answer begins in them.
    """
    first = min(starts)
    answers = sequences[:, first:]
    certain = torch.full((*answers.shape, vocabulary), -torch.inf)
    certain.scatter_(-1, answers.cpu()[..., None], 0.0)
    for own, finish, start in zip(certain, done, starts, strict=True):
        for column, logits in zip(own[start - first :], finish.logits or (), strict=False):
            if logits is not None:
                column[:] = logits
    return tuple(certain.transpose(0, 1).contiguous())
