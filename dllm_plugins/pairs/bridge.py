"""Two tokenizers: a text in the target's tokens becomes one in the drafter's, and drafts become the target's.

Drafts are read as text, and only what stands behind the last final token is cut into tokens anew. Whatever comes out
is verified, so a text that the other tokenizer cannot say costs drafts, never correctness.
"""

from collections.abc import Sequence
from typing import Any
from typing import Protocol

import torch
from torch import Tensor

#: Tokens on the left that decide how the next ones are written and cut: spaces, and characters of several tokens.
_SEAM = 8
_BROKEN = "\ufffd"


class Bridge(Protocol):
    """Between the tokens of a target and those of its drafter."""

    def over(self, tokens: list[int]) -> list[int] | None:
        """The target's text in the drafter's tokens; None where it ends inside a character."""

    def back(self, tokens: list[int], text: list[int], drafts: Tensor) -> Tensor:
        """Drafts as the target's, float64 [m, 2], ids and probabilities.

        :param tokens: the target's text.
        :param text: the same in the drafter's tokens.
        :param drafts: the drafter's, float64 [n, 2].
        """


class OneTokenizer:
    """Both read the same tokens; see :class:`Bridge`."""

    def over(self, tokens: list[int]) -> list[int] | None:
        """See :class:`Bridge`."""
        return list(tokens)

    def back(self, tokens: list[int], text: list[int], drafts: Tensor) -> Tensor:
        """See :class:`Bridge`."""
        return drafts


class TwoTokenizers:
    """See :class:`Bridge`.

    :param ends: the drafter's ids that end a text; what follows one is left out.
    """

    def __init__(self, target: Any, drafter: Any, ends: frozenset[int]) -> None:
        self._target = target
        self._drafter = drafter
        self._ends = ends

    def over(self, tokens: list[int]) -> list[int] | None:
        """See :class:`Bridge`; special tokens are those of the same name, where there is one."""
        text = _text(self._target, tokens)
        return None if text.endswith(_BROKEN) else _ids(self._drafter, text) or None

    def back(self, tokens: list[int], text: list[int], drafts: Tensor) -> Tensor:
        """See :class:`Bridge`; each has the least probability of all, for nobody knows their share of it."""
        ids = [int(token) for token in drafts[:, 0].tolist()]
        ids = ids[: next((place for place, token in enumerate(ids) if token in self._ends), len(ids))]
        if not ids:
            return drafts[:0]
        found = self._cut(tokens, _behind(self._drafter, text[-_SEAM:], ids))
        least = float(drafts[: len(ids), 1].min())
        return torch.tensor([[token, least] for token in found], dtype=torch.float64).reshape(-1, 2)

    def _cut(self, tokens: list[int], said: str) -> list[int]:
        """A text as the target's tokens behind its own."""
        seam = tokens[-_SEAM:]
        whole = _ids(self._target, _text(self._target, seam) + said)
        # Where a word has gone on, its tokens are another cut of it.
        return whole[len(seam) :] if whole[: len(seam)] == seam else _ids(self._target, said)


def _behind(tokenizer: Any, before: Sequence[int], ids: Sequence[int]) -> str:
    """What tokens say behind others, up to where it ends inside a character."""
    begin, whole = _text(tokenizer, before), _text(tokenizer, [*before, *ids])
    said = whole[len(begin) :] if whole.startswith(begin) else ""
    return said.partition(_BROKEN)[0]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def _ids(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer.encode(text, add_special_tokens=False)] if text else []
