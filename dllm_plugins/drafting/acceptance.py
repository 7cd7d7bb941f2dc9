"""How likely a draft is the very token that is drawn there: what held on other texts, corrected by this one."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Who proposed a draft: the denoiser's open rows, the text so far, or a constraint that leaves no choice.
Source = Literal["denoiser", "prompt_lookup", "constraint"]
SOURCES: tuple[Source, ...] = ("denoiser", "prompt_lookup")
FORCED: Source = "constraint"

#: What a denoiser's draft is told apart by: its own probability, and how many drafts stand before it.
EDGES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
#: Shares of drafts that were accepted once all before them were: first, second and later ones, by those edges.
#: Of the default model on prompts that nothing was trained on, greedy; and of all drafts where tokens are sampled
#: (temperature 0.8), which draw alike by the same noise even where neither was likely.
GREEDY = (
    (0.08, 0.12, 0.25, 0.38, 0.48, 0.60, 0.79, 0.89, 0.97),
    (0.07, 0.10, 0.22, 0.34, 0.57, 0.70, 0.75, 0.94, 0.985),
    (0.08, 0.15, 0.31, 0.46, 0.60, 0.64, 0.86, 0.91, 0.985),
)
SAMPLED = ((0.24, 0.30, 0.31, 0.36, 0.42, 0.56, 0.70, 0.78, 0.88),)
#: The same for copied tokens, by the number of tokens alike before them.
LOOKUP = {2: 0.47, 3: 0.58, 4: 0.70, 5: 0.72, 6: 0.74, 7: 0.77, 8: 0.82, 9: 0.86, 10: 0.88, 11: 0.90, 12: 0.95}
#: As many drafts as what held on other texts counts for, and what a draft seen counts for after each further one.
_BEFORE, _FADING = 12.0, 0.97
_MOST = 0.985


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed token.

    :param chance: of being accepted once all drafts before it are, as other texts say.
    """

    token: int
    source: Source
    chance: float


class Acceptance:
    """Of one request: what other texts say, times what this one's drafts were worth beside it, by source.

    :param sampled: whether its tokens are, at a temperature above 0.
    """

    def __init__(self, sampled: bool = False) -> None:
        self._shares = SAMPLED if sampled else GREEDY
        self._hits = dict.fromkeys(SOURCES, _BEFORE / 2)
        self._expected = dict.fromkeys(SOURCES, _BEFORE / 2)

    def denoised(self, token: int, probability: float, before: int) -> Proposal:
        """A denoiser's draft.

        :param before: drafts between the final text and this one.
        """
        shares = self._shares[min(before, len(self._shares) - 1)]
        return Proposal(token, "denoiser", shares[bisect_right(EDGES, probability)])

    def copied(self, token: int, alike: int) -> Proposal:
        """A token that followed `alike` tokens like the ones before it."""
        return Proposal(token, "prompt_lookup", LOOKUP[alike])

    def factor(self, source: Source) -> float:
        """How much likelier this text's drafts are accepted than other texts'."""
        return self._hits[source] / self._expected[source]

    def chance(self, draft: Proposal) -> float:
        """Of one draft; what has to come is certain once all before it is there."""
        if draft.source == FORCED:
            return 1.0
        return min(_MOST, draft.chance * self.factor(draft.source))

    def learn(self, drafts: Sequence[Proposal], accepted: int) -> None:
        """Of these drafts, which were verified, the first `accepted` were right; behind the next nothing is known."""
        for index, draft in enumerate(drafts[: accepted + 1]):
            source = draft.source
            if source == FORCED:
                continue
            self._hits[source] = self._hits[source] * _FADING + (index < accepted) + _BEFORE / 2 * (1 - _FADING)
            self._expected[source] = self._expected[source] * _FADING + draft.chance + _BEFORE / 2 * (1 - _FADING)
