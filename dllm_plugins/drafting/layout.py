"""The layout of one pass: how many drafts to verify, and where to draft anew, by what that costs and yields."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from dllm_plugins.denoisers.costs import Costs

#: Most drafts of the denoiser behind one candidate, and most candidates with a group behind them.
LARGEST_GROUP, MOST_GROUPS = 4, 6
#: Drafts that are reached less often than this are not worth a thought.
_LEAST = 0.01
#: Drafts also spread the groups of the pass that verifies them over more candidates. What that takes of their worth,
#: by value iteration over the typical chains on curves from flat to steep: a tenth to a quarter.
_SPREAD = 0.8


@dataclass(frozen=True, slots=True)
class PassLayout:
    """What one pass forwards.

    :param verified: how many of the drafts.
    :param groups: how many open rows behind a candidate, by how many drafts are accepted in it.
    """

    verified: int = 0
    groups: Mapping[int, int] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Open rows of all groups."""
        return sum(self.groups.values())


@dataclass(frozen=True, slots=True)
class Market:
    """What rows cost in this pass, and what a token is worth.

    :param costs: of passes.
    :param clean: clean rows that are forwarded anyway: this row's without drafts, and all that others forward.
    :param token: milliseconds that a token takes otherwise.
    """

    costs: Costs
    clean: int
    token: float

    def price(self, verified: int, open_rows: int = 0) -> float:
        """Milliseconds that so many drafts and open rows add to the pass."""
        return self.costs.pass_over(self.clean + verified, open_rows) - self.costs.pass_over(self.clean)


def worth(market: Market, chains: Sequence[Sequence[float]]) -> list[float]:
    """Milliseconds that the next pass saves, on average, by 0, 1, ... drafts of the denoiser.

    :param chains: the chances of typical drafts, one behind the other.
    """
    draft, prices = market.costs.draft, [market.price(count) for count in range(LARGEST_GROUP + 1)]
    total = [0.0] * (LARGEST_GROUP + 1)
    for chain in chains:
        reached, yields, best = 1.0, 0.0, -draft
        for count, chance in enumerate(chain, 1):
            reached *= chance
            yields += reached
            best = max(best, market.token * yields - prices[count] - draft * count)
            total[count] += best
        for count in range(len(chain) + 1, LARGEST_GROUP + 1):
            total[count] += best
    return [_SPREAD * saved / max(1, len(chains)) for saved in total]


def choose(market: Market, chances: Sequence[float], groups: Sequence[float], room: int) -> PassLayout:
    """The layout that saves most milliseconds: tokens at their worth, less the price of the rows.

    All of at most :data:`MOST_GROUPS` groups are of one length, behind the likeliest candidates.

    :param chances: of each draft once all before it are accepted.
    :param groups: milliseconds that a group of 0, 1, ... drafts saves if its candidate comes true.
    :param room: how many tokens may still be generated.
    """
    best, layout = 0.0, PassLayout()
    reached, yields = 1.0, 0.0
    # Candidates, by the chance that so many drafts are accepted and the next one is not.
    ends: list[tuple[float, int]] = []
    for verified in range(min(len(chances), max(0, room - 1)) + 1):
        if verified:
            reached *= chances[verified - 1]
            yields += reached
        if reached < _LEAST:
            break
        found = market.token * yields - market.price(verified)
        if found > best:
            best, layout = found, PassLayout(verified)
        likeliest = sorted([*ends, (reached, verified)], reverse=True)[:MOST_GROUPS]
        saved, sizes = _grouped(market, verified, likeliest, groups, room)
        if sizes and market.token * yields + saved > best:
            best, layout = market.token * yields + saved, PassLayout(verified, sizes)
        if verified < len(chances):
            ends.append((reached * (1 - chances[verified]), verified))
    return layout


def _grouped(
    market: Market, verified: int, likeliest: Sequence[tuple[float, int]], groups: Sequence[float], room: int
) -> tuple[float, dict[int, int]]:
    """The best groups behind candidates, (chance, accepted): what they save less the price of the pass; their sizes."""
    best, size, count = float("-inf"), 0, 0
    for each in range(1, len(groups)):
        saved, rows = 0.0, 0
        for place, (chance, accepted) in enumerate(likeliest, 1):
            fits = min(each, room - accepted - 2)
            if fits <= 0 or chance < _LEAST:
                continue
            rows += fits
            saved += chance * groups[fits]
            if (found := saved - market.price(verified, rows)) > best:
                best, size, count = found, each, place
    sizes = {accepted: min(size, room - accepted - 2) for _, accepted in likeliest[:count]}
    return best, {accepted: fits for accepted, fits in sizes.items() if fits > 0}
