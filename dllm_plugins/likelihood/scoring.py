"""The log-likelihood of a text behind a prompt, in the way a model defines one."""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.likelihood.looks import Look
from dllm_plugins.likelihood.looks import OneBlock
from dllm_plugins.likelihood.looks import WholeText
from dllm_plugins.likelihood.looks import log_probabilities
from dllm_plugins.likelihood.patterns import patterns
from dllm_plugins.noise import RowNoise

Way = Literal["autoregressive", "whole", "blocks"]
_LEFTWARDS = ("causal", "causal context, bidirectional block")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a bound is estimated; autoregressive likelihoods need none of it.

    :param samples: sets of masks for the whole text, or for each block; all there are where those are fewer.
    :param seed: of what is drawn.
    :param together: sets of masks that are forwarded in one pass.
    :param block_length: of models that denoise in blocks; the model's own where None is given.
    """

    samples: int = 128
    seed: int = 0
    together: int = 16
    block_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "together", "block_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name}={value} must be 1 or more")


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of one text.

    :param logprob: natural logarithm: the likelihood itself, or an estimate of a lower bound of it.
    :param greedy: whether greedy decoding gives this text: the likeliest token each time, from left to right or at
        the position that is surest.
    """

    logprob: float
    greedy: bool


def way_of(spec: ModelSpec) -> Way:
    """How a model says how likely a text is.

    :raises OptionError: for one that says nothing of texts.
    """
    if "ar" in spec.modes or spec.attention in _LEFTWARDS:
        return "autoregressive"
    if spec.attention in ("bidirectional", "own"):
        return "whole"
    if spec.attention == "block-causal":
        return "blocks"
    raise OptionError(
        f"{spec.name} says of no text how likely it is: its noise is not a mask, or its masks stand behind the text; "
        f"choose tasks that generate, or another model"
    )


def log_likelihood(
    denoiser: Denoiser, prompt: Sequence[int], target: Sequence[int], sampling: Sampling | None = None
) -> Likelihood:
    """How likely `target` is behind `prompt`, all token ids.

    Models that write from left to right say it exactly. Others give a lower bound: over all orders of revealing the
    target where the whole text is seen; where blocks are denoised, the sum of what each block's is behind the clean
    ones before it. There a target that ends within a block leaves the rest of it open, as nothing is said about it.

    :raises OptionError: see :func:`way_of`.
    :raises RequestError: for a target that is empty or holds the mask, ids outside the vocabulary, a text beyond the
        context, and an empty prompt where the first token could not be predicted.
    """
    spec, sampling = denoiser.spec, sampling or Sampling()
    way = way_of(spec)
    check(spec, prompt, target, way)
    tokens, places = [*prompt, *target], range(len(prompt), len(prompt) + len(target))
    if way == "autoregressive":
        return _leftwards(denoiser, tokens, places)
    if way == "whole":
        return _denoised(WholeText(denoiser, tokens), tokens, places, sampling, spec.mask_id)
    parts = list(_in_blocks(denoiser, tokens, places, sampling))
    return Likelihood(sum(part.logprob for part in parts), all(part.greedy for part in parts))


def check(spec: ModelSpec, prompt: Sequence[int], target: Sequence[int], way: Way) -> None:
    """Refuse what has no likelihood; see :func:`log_likelihood`."""
    if not target:
        raise RequestError("the text whose likelihood is asked for is empty; give at least one token")
    if not prompt and (way == "autoregressive" or spec.shifted):
        raise RequestError(
            f"nothing stands before the text, and {spec.name} predicts a token from those before it; give a prompt, "
            f"such as the id that begins texts (bos_token)"
        )
    length = len(prompt) + len(target)
    if length > spec.context:
        raise RequestError(f"prompt and text have {length} tokens, but {spec.name} holds {spec.context}; shorten them")
    for token in (*prompt, *target):
        if not 0 <= token < spec.vocabulary or token == spec.mask_id:
            raise RequestError(f"token {token} is the mask or none of {spec.name}'s; leave it out of prompt and text")


def _leftwards(denoiser: Denoiser, tokens: Sequence[int], places: range) -> Likelihood:
    """Each token given those before it, in one pass."""
    row = denoiser.open_row()
    try:
        # What the last token says is of what stands behind the text.
        known, wanted = tokens[:-1], [place - 1 for place in places]
        [hidden] = denoiser.forward([Segment(row, known, range(len(known)), wanted=wanted)])
        said = log_probabilities(denoiser, hidden)
    finally:
        denoiser.close_row(row)
    own = torch.tensor(tokens[places.start : places.stop])
    return Likelihood(float(said.gather(1, own[:, None]).double().sum()), bool((said.argmax(-1) == own).all()))


def _in_blocks(denoiser: Denoiser, tokens: Sequence[int], places: range, sampling: Sampling) -> Iterator[Likelihood]:
    """Block after block, what stands before each being frozen."""
    spec, length = denoiser.spec, sampling.block_length or denoiser.spec.block_length
    row, frozen = denoiser.open_row(), 0
    try:
        for begin in range(places.start // length * length, places.stop, length):
            block = range(begin, min(begin + length, spec.context))
            scored = range(max(begin, places.start), min(block.stop, places.stop))
            if begin:
                said = _freeze(denoiser, row, tokens, range(frozen, begin), length)
                frozen = begin
                if spec.shifted and scored.start == begin:
                    # The clean token before a block says its first one.
                    yield Likelihood(float(said[tokens[begin]]), int(said.argmax()) == tokens[begin])
                    scored = scored[1:]
            if scored:
                text = [*tokens[: scored.stop], *[spec.mask_id] * (block.stop - scored.stop)]
                yield _denoised(OneBlock(denoiser, row, text, block), text, scored, sampling, spec.mask_id)
    finally:
        denoiser.close_row(row)


def _freeze(denoiser: Denoiser, row: int, tokens: Sequence[int], places: range, length: int) -> Tensor:
    """Let clean blocks join the prefix; what the last token says, log-probabilities [V]."""
    groups, known = [place // length for place in places], tokens[places.start : places.stop]
    segment = Segment(row, known, places, noisy=True, groups=groups, wanted=[len(places) - 1])
    [hidden] = denoiser.forward([segment])
    denoiser.freeze(row, len(places))
    return log_probabilities(denoiser, hidden)[0]


def _denoised(look: Look, tokens: Sequence[int], places: range, sampling: Sampling, mask: int) -> Likelihood:
    """The bound over all sets of masks, or some that are drawn."""
    total = 0.0
    found = patterns(len(places), sampling.samples, RowNoise(sampling.seed), places.start)
    for start in range(0, len(found), sampling.together):
        group = found[start : start + sampling.together]
        masked = [[places[index] for index in pattern.masked] for pattern in group]
        for pattern, positions, said in zip(group, masked, look.at(masked), strict=True):
            own = torch.tensor([tokens[position] for position in positions])
            total += pattern.weight * float(said.gather(1, own[:, None]).double().sum())
    return Likelihood(total, _is_greedy(look, tokens, places, mask))


def _is_greedy(look: Look, tokens: Sequence[int], places: range, mask: int) -> bool:
    """Whether the likeliest token of the surest position, one a pass, is the text's every time; never the mask."""
    masked = list(places)
    while masked:
        [said] = look.at([masked])
        said[:, mask] = -torch.inf
        best, token = said.max(dim=-1)
        surest = int(best.argmax())
        if int(token[surest]) != tokens[masked[surest]]:
            return False
        del masked[surest]
    return True
