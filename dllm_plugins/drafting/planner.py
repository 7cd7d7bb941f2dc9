"""Plans: what each pass of a row verifies and where it drafts, fixed beforehand or chosen anew for every pass."""

from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting.acceptance import FORCED
from dllm_plugins.drafting.acceptance import Acceptance
from dllm_plugins.drafting.acceptance import Proposal
from dllm_plugins.drafting.acceptance import Source
from dllm_plugins.drafting.chains import CHAINS
from dllm_plugins.drafting.layout import Market
from dllm_plugins.drafting.layout import PassLayout
from dllm_plugins.drafting.layout import choose
from dllm_plugins.drafting.layout import worth
from dllm_plugins.drafting.lookup import Lookup

#: Most drafts that are verified in one pass.
LONGEST_CHAIN = 16
#: What a token takes is a mean over about so many passes, and at first what it takes without drafts.
_PASSES, _KNOWN = 20, 6


class Plan(Protocol):
    """Of one row.

    :ivar weighs: whether it wants to know how probable a denoiser's drafts are.
    """

    weighs: bool

    def drafts(self, text: Sequence[int], denoised: Sequence[Proposal]) -> list[Proposal]:
        """What may be verified behind a text, in order.

        :param denoised: the denoiser's drafts behind it.
        """

    def denoised(self, token: int, probability: float, before: int) -> Proposal:
        """A denoiser's draft, by its own probability and the number of drafts before it."""

    def layout(self, drafts: Sequence[Proposal], clean: int, room: int, company: tuple[int, int]) -> PassLayout:
        """The next pass.

        :param clean: rows of the text that are forwarded anyway.
        :param room: how many tokens may still be generated.
        :param company: how many requests share the passes, and their rows in the last one.
        """

    def go_on(self, drawn: Sequence[Proposal]) -> bool:
        """Whether to draw one more draft behind these."""

    def learn(self, verified: Sequence[Proposal], accepted: int) -> None:
        """Of these drafts the first `accepted` were right."""


class FixedPlan:
    """Always as many drafts, with a group of as many open rows behind each candidate where the denoiser makes them."""

    weighs = False

    def __init__(self, length: int, source: Source) -> None:
        self._length, self._source = length, source
        self._lookup = Lookup()

    def drafts(self, text: Sequence[int], denoised: Sequence[Proposal]) -> list[Proposal]:
        """See :class:`Plan`."""
        if self._source == "denoiser":
            return list(denoised)
        return copied(self._lookup, text, self._length, Acceptance())

    def denoised(self, token: int, probability: float, before: int) -> Proposal:
        """See :class:`Plan`."""
        return Proposal(token, "denoiser", 1.0)

    def layout(self, drafts: Sequence[Proposal], clean: int, room: int, company: tuple[int, int]) -> PassLayout:
        """See :class:`Plan`."""
        verified = min(len(drafts), max(0, room - 1))
        if self._source != "denoiser":
            return PassLayout(verified)
        # Where a forced draft follows, no text ends.
        ends = [end for end in range(verified + 1) if end == verified or drafts[end].source != FORCED]
        sizes = {accepted: min(self._length, room - accepted - 2) for accepted in ends}
        return PassLayout(verified, {accepted: size for accepted, size in sizes.items() if size > 0})

    def go_on(self, drawn: Sequence[Proposal]) -> bool:
        """See :class:`Plan`."""
        return True

    def learn(self, verified: Sequence[Proposal], accepted: int) -> None:
        """See :class:`Plan`."""


class ChosenPlan:
    """What saves most time, by what passes cost here and how this text's drafts have fared.

    Rows of one pass choose for themselves: each reckons with what the others forwarded last, so that a row of
    its own costs what it adds to the pass, and a token takes its share of it.
    """

    weighs = True

    def __init__(self, costs: Costs, sources: Sequence[Source], sampled: bool = False) -> None:
        self._costs, self._sources = costs, sources
        self._acceptance, self._lookup = Acceptance(sampled), Lookup()
        self._taken, self._made = 0.0, 0.0
        self._market = Market(costs, 1, costs.pass_over(1))

    def drafts(self, text: Sequence[int], denoised: Sequence[Proposal]) -> list[Proposal]:
        """See :class:`Plan`; at each place that of the likelier source, given the drafts before it."""
        if "prompt_lookup" not in self._sources:
            return list(denoised)
        self._lookup.read(text)
        found: list[Proposal] = []
        tokens, follows = list(text), len(denoised) > 0
        looked_up = self._lookup.follow(tokens)
        for place in range(LONGEST_CHAIN):
            own = denoised[place] if follows and place < len(denoised) else None
            copy = next(looked_up)
            best = self._better(own, None if copy is None else self._acceptance.copied(*copy))
            if best is None:
                break
            follows = own is not None and best.token == own.token
            found.append(best)
            tokens.append(best.token)
        return found

    def _better(self, own: Proposal | None, copy: Proposal | None) -> Proposal | None:
        if own is None or copy is None:
            return own or copy
        if own.token == copy.token:
            return Proposal(own.token, copy.source, 1 - (1 - own.chance) * (1 - copy.chance))
        return max(own, copy, key=self._acceptance.chance)

    def denoised(self, token: int, probability: float, before: int) -> Proposal:
        """See :class:`Plan`."""
        return self._acceptance.denoised(token, probability, before)

    def layout(self, drafts: Sequence[Proposal], clean: int, room: int, company: tuple[int, int]) -> PassLayout:
        """See :class:`Plan`."""
        requests, rows = company
        # Without drafts a token takes so much. Where drafts have made it dearer, that is no reason to draft more.
        plain = self._costs.pass_over(1 + requests) / (1 + requests)
        token = min(plain, (self._taken + _KNOWN * plain) / (self._made + _KNOWN))
        self._market = market = Market(self._costs, clean + rows, token)
        groups = self._groups(market) if "denoiser" in self._sources else [0.0]
        found = choose(market, [self._acceptance.chance(draft) for draft in drafts], groups, room)
        fading = 1 - 1 / _PASSES
        self._taken, self._made = self._taken * fading, self._made * fading
        self._taken += (self._costs.pass_over(1 + rows) + market.price(found.verified, found.open)) / (1 + requests)
        return found

    def _groups(self, market: Market) -> list[float]:
        factor = self._acceptance.factor("denoiser")
        return worth(market, [[min(0.985, chance * factor) for chance in chain] for chain in CHAINS])

    def go_on(self, drawn: Sequence[Proposal]) -> bool:
        """See :class:`Plan`: as long as the next one may be expected to pay."""
        reached = 1.0
        for draft in drawn:
            reached *= self._acceptance.chance(draft)
        market, count = self._market, len(drawn)
        price = market.price(count + 1) - market.price(count) + market.costs.draft
        return reached * market.token > price

    def learn(self, verified: Sequence[Proposal], accepted: int) -> None:
        """See :class:`Plan`."""
        self._made += accepted + 1
        self._acceptance.learn(verified, accepted)


def copied(lookup: Lookup, text: Sequence[int], most: int, acceptance: Acceptance) -> list[Proposal]:
    """What followed the same tokens before in this text, at most so many tokens."""
    lookup.read(text)
    tokens, found = list(text), []
    for copy in islice(lookup.follow(tokens), most):
        if copy is None:
            break
        found.append(acceptance.copied(*copy))
        tokens.append(copy[0])
    return found
