"""The choice of a layout, beside all layouts there are; what is copied; what is learnt of acceptance."""

from collections.abc import Sequence
from itertools import product

import pytest

from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting.acceptance import Acceptance
from dllm_plugins.drafting.acceptance import Proposal
from dllm_plugins.drafting.layout import Market
from dllm_plugins.drafting.layout import PassLayout
from dllm_plugins.drafting.layout import choose
from dllm_plugins.drafting.layout import worth
from dllm_plugins.drafting.lookup import Lookup
from dllm_plugins.drafting.planner import ChosenPlan
from dllm_plugins.drafting.planner import FixedPlan

CURVES = [
    Costs.of_clean({1: 7.0, 64: 7.5}),
    Costs.of_clean({1: 7.0, 4: 8.5, 16: 14.0}),
    Costs.of_clean({1: 7.0, 4: 12.6, 16: 27.0}),
    Costs(((1, 7.0), (16, 9.0)), ((1, 9.0), (8, 20.0)), 0.4),
    Costs.of_clean({1: 5.0, 3: 5.0, 4: 9.0, 6: 9.0, 7: 13.0}),
]
CHANCES = [(), (0.9,), (0.3, 0.9), (0.95, 0.9, 0.2), (0.6, 0.6, 0.6, 0.6)]


def saved(layout: PassLayout, market: Market, chances: Sequence[float], groups: Sequence[float], room: int) -> float:
    """Milliseconds that a layout saves, from its definition: the mean over how many drafts come true."""
    total = -market.price(layout.verified, sum(layout.groups.values()))
    for accepted in range(layout.verified + 1):
        chance = 1.0
        for right in chances[:accepted]:
            chance *= right
        if accepted < layout.verified:
            chance *= 1 - chances[accepted]
        group = layout.groups.get(accepted, 0)
        total += chance * (market.token * accepted + groups[min(group, max(0, room - accepted - 2))])
    return total


def every_layout(count: int, largest: int) -> list[PassLayout]:
    """Any number of drafts, with groups of one size behind any of the candidates."""
    found = []
    for verified in range(count + 1):
        for behind in product((False, True), repeat=verified + 1):
            for size in range(1, largest + 1) if any(behind) else (1,):
                found.append(PassLayout(verified, {place: size for place, there in enumerate(behind) if there}))
    return found


@pytest.mark.parametrize("costs", CURVES)
@pytest.mark.parametrize("chances", CHANCES)
def test_no_other_layout_saves_more(costs: Costs, chances: tuple[float, ...]) -> None:
    """Of all with groups of one size, on any curve, with any room, alone and in company."""
    groups = [0.0, 1.8, 2.6, 2.9]
    for clean, room in ((1, 50), (9, 50), (1, 4), (1, 2), (1, 1)):
        market = Market(costs, clean, 6.0)
        chosen = choose(market, chances, groups, room)
        assert chosen.verified <= max(0, room - 1)
        best = max(
            saved(layout, market, chances, groups, room)
            for layout in every_layout(min(len(chances), max(0, room - 1)), 3)
            if all(place + size + 2 <= room for place, size in layout.groups.items())
        )
        # Near the end of the answer groups may be of unlike sizes, which is better still.
        assert saved(chosen, market, chances, groups, room) >= best - 1e-9


def test_nothing_is_chosen_where_nothing_pays() -> None:
    """Neither dear rows, nor drafts without a chance, nor the last token."""
    dear = Market(Costs.of_clean({1: 1.0, 2: 3.0}), 1, 1.0)
    assert choose(dear, [0.9, 0.9], [0.0, 0.5], 50) == PassLayout()
    free = Market(Costs.of_clean({1: 1.0, 2: 1.1}), 1, 1.0)
    assert choose(free, [0.0], [0.0, 0.0], 50) == PassLayout()
    assert choose(free, [0.9], [0.0, 0.5], 1) == PassLayout()


def test_a_group_is_worth_what_its_drafts_save() -> None:
    """By typical chains: right drafts are worth their tokens less their rows, hopeless ones less than nothing."""
    market = Market(Costs.of_clean({1: 10.0, 11: 20.0}), 1, 10.0)
    right, hopeless = worth(market, [[1.0, 1.0]]), worth(market, [[0.0]])
    assert right[0] == hopeless[0] == 0.0
    assert right[1] == pytest.approx(0.8 * 9.0)
    assert right[2] == pytest.approx(0.8 * 18.0)
    assert hopeless[1] <= 0.0
    draws = Market(Costs(((1, 10.0), (11, 20.0)), (), 2.0), 1, 10.0)
    assert worth(draws, [[0.0]])[1] == pytest.approx(-0.8 * 2.0)


def test_the_longest_run_of_like_tokens_is_followed() -> None:
    """Not the latest, unless it is as long; and never from behind the end."""
    lookup = Lookup()
    text = [1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3]
    lookup.read(text)
    assert lookup.find(text) == (3, 3)
    assert lookup.find([*text, 7, 2, 3]) == (7, 2)
    assert lookup.find([*text, 7, 8]) == Lookup().find([3]) == Lookup().find([]) == (0, 0)


def test_what_is_copied_goes_on_until_the_text_ends_and_after_another_token() -> None:
    """A loop is followed round and round; another token than the copied one is looked up anew."""
    lookup, text = Lookup(), [5, 6, 7, 5, 6, 7]
    lookup.read(text)
    tokens = list(text)
    follow = lookup.follow(tokens)
    for _ in range(9):
        found = next(follow)
        assert found is not None
        tokens.append(found[0])
    assert tokens == [5, 6, 7] * 5
    tokens.append(99)
    assert next(follow) is None
    tokens += [5, 6]
    found = next(follow)
    assert found is not None
    assert found[0] == 7


def test_a_text_of_its_own_moves_what_is_expected() -> None:
    """Better or worse than other texts, by source; one draft alone hardly counts."""
    seen = Acceptance()
    own = seen.denoised(4, 0.7, 0)
    before = seen.chance(own)
    seen.learn([own], 0)
    assert 0.8 * before < seen.chance(own) < before
    for _ in range(60):
        seen.learn([own], 0)
    assert seen.chance(own) < before / 2
    copy = seen.copied(4, 3)
    assert seen.factor("prompt_lookup") == 1.0
    for _ in range(60):
        seen.learn([copy, copy], 2)
    assert seen.chance(copy) > 1.2 * copy.chance
    assert seen.chance(copy) < 1.0
    # Behind the first wrong one nothing is known.
    other = Acceptance()
    other.learn([own, copy, copy], 0)
    assert other.factor("prompt_lookup") == 1.0


def test_likelier_drafts_have_better_chances() -> None:
    """By a denoiser's own probability, and by how much is alike."""
    seen = Acceptance()
    for before in (0, 1, 5):
        chances = [seen.denoised(1, probability / 50, before).chance for probability in range(51)]
        assert chances == sorted(chances)
    chances = [seen.copied(1, alike).chance for alike in range(2, 13)]
    assert chances == sorted(chances)


def test_sources_go_on_from_one_another() -> None:
    """At each place the likelier one, behind the drafts that were taken before."""
    plan = ChosenPlan(CURVES[0], ("denoiser", "prompt_lookup"))
    text = [1, 2, 3, 4, 5, 6, 7, 8, 30, 1, 2, 3]
    likely, agreeing = Proposal(44, "denoiser", 0.99), Proposal(4, "denoiser", 0.5)
    copies = plan.drafts(text, [])
    assert [draft.token for draft in copies[:5]] == [4, 5, 6, 7, 8]
    assert {draft.source for draft in copies} == {"prompt_lookup"}
    assert [draft.token for draft in plan.drafts(text, [likely])] == [44]
    both = plan.drafts(text, [agreeing, Proposal(77, "denoiser", 0.1)])
    assert [draft.token for draft in both[:3]] == [4, 5, 6]
    assert both[0].chance > max(copies[0].chance, agreeing.chance)
    alone = ChosenPlan(CURVES[0], ("denoiser",))
    assert alone.drafts(text, [likely]) == [likely]


def test_company_makes_rows_cheap_or_dear() -> None:
    """Beside seven others a row costs a share; a curve that is steep there forbids what it allows alone."""
    plan = ChosenPlan(Costs.of_clean({1: 10.0, 8: 10.0, 9: 18.0, 10: 26.0}), ("denoiser",))
    drafts = [Proposal(3, "denoiser", 0.9)]
    assert plan.layout(drafts, 1, 50, (0, 0)).verified == 1
    crowded = ChosenPlan(Costs.of_clean({1: 10.0, 8: 10.0, 9: 18.0, 10: 26.0}), ("denoiser",))
    assert crowded.layout(drafts, 1, 50, (7, 7)).verified == 0


def test_what_drafts_have_made_dear_is_no_reason_to_draft_more() -> None:
    """A token is worth what it takes without drafts, however many rows others forward."""
    each = Costs.of_clean({1: 10.0, 2: 20.0, 32: 320.0})
    plan = ChosenPlan(each, ("denoiser",))
    for _ in range(5):
        found = plan.layout([Proposal(3, "denoiser", 0.9)], 1, 50, (7, 100))
        assert (found.verified, found.open) == (0, 0)
        plan.learn([], 0)


def test_a_fixed_plan_verifies_all_and_drafts_everywhere() -> None:
    """But for what the answer has no room for."""
    plan = FixedPlan(2, "denoiser")
    drafts = [Proposal(3, "denoiser", 1.0), Proposal(4, "denoiser", 1.0)]
    assert plan.layout(drafts, 1, 50, (0, 0)) == PassLayout(2, {0: 2, 1: 2, 2: 2})
    assert plan.layout(drafts, 1, 4, (0, 0)) == PassLayout(2, {0: 2, 1: 1})
    assert plan.layout(drafts, 1, 1, (0, 0)) == PassLayout(0, {})
    copying = FixedPlan(3, "prompt_lookup")
    copies = copying.drafts([1, 2, 3, 4, 1, 2], [])
    assert [draft.token for draft in copies] == [3, 4, 1]
    assert copying.layout(copies, 1, 50, (0, 0)) == PassLayout(3, {})
