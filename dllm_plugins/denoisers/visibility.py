"""Who sees whom in a pass: the one place where what a segment says of it becomes masks."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Segment


def linked(segments: Sequence[Segment]) -> list[list[Segment]]:
    """A pass as calls: segments of one row that stand together and may see one another.

    A segment that is behind nothing begins a call, so that segments without anything in common, such as
    two canvases of guidance, are not forwarded over each other's keys. In what is returned, `behind`
    counts a call's own segments.
    """
    calls: list[list[Segment]] = []
    # Numbers, among the row's segments, of the first one of each of the row's calls.
    begins: list[int] = []
    number = 0
    for segment in segments:
        if not calls or calls[-1][0].row != segment.row:
            begins, number = [], 0
        if segment.behind and begins:
            first = min(index for index, _ in segment.behind)
            while begins[-1] > first:
                # It sees further back than its neighbours: they become one call.
                begin, last = begins.pop(), calls.pop()
                calls[-1] += [_shifted(each, begins[-1] - begin) for each in last]
            calls[-1].append(_shifted(segment, begins[-1]))
        else:
            calls.append([segment])
            begins.append(number)
        number += 1
    return calls


def _shifted(segment: Segment, by: int) -> Segment:
    """The segment where the row's first `by` segments are not counted."""
    if not by or not segment.behind:
        return segment
    return replace(segment, behind=tuple((index - by, count) for index, count in segment.behind))


def visible(call: Sequence[Segment], kept: int) -> Tensor:
    """Which keys each token of a call sees: bool [tokens, kept + tokens].

    :param kept: positions in front of the call that every token sees.
    """
    begins = [0]
    for segment in call:
        begins.append(begins[-1] + len(segment.tokens))
    seen = torch.zeros(begins[-1], kept + begins[-1], dtype=torch.bool)
    seen[:, :kept] = True
    for segment, begin in zip(call, begins, strict=False):
        length = len(segment.tokens)
        rows, own = slice(begin, begin + length), slice(kept + begin, kept + begin + length)
        if segment.groups is not None:
            groups = torch.tensor(list(segment.groups))
            seen[rows, own] = groups[None, :] <= groups[:, None]
        else:
            inside = torch.ones(length, length, dtype=torch.bool)
            seen[rows, own] = inside.tril() if segment.causal else inside
        for index, count in segment.behind:
            seen[rows, kept + begins[index] : kept + begins[index] + count] = True
        for token, place in enumerate(segment.apart or ()):
            if place >= 0:
                seen[begin + token, kept + begins[segment.behind[-1][0]] + place] = False
    return seen


def additive(seen: Tensor, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """As transformers' classes add it to their scores: 0 where seen, else the least number; [..., 1, N, K].

    :param seen: bool [..., N, K].
    :param device: where it goes; None for where `seen` is.
    """
    seen = seen.to(device or seen.device)
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(-3)
