"""The mixed bag: who is asked what, and rows over the kinds that both were asked."""

from pathlib import Path

from dllm_plugins import Model
from dllm_plugins.routing.contents import content_of
from dllm_plugins.routing.kept import Book
from harness import Answer
from harness import Result
from mixture import Bag
from mixture import rows_of
from mixture_bag import BAG
from mixture_bag import Asked
from mixture_bag import half
from mixture_bag import mixed
from mixture_bag import puzzles
from mixture_bag import serves


def test_rows_are_over_what_both_were_asked() -> None:
    """Where one cannot fill gaps, those do not count for or against it."""
    fast, slow = Result((Answer("a", 10, 5),), (1.0,)), Result((Answer("b", 10, 10),), (2.0,))
    rows = {row.name: row for row in rows_of({"chat": {"auto": fast, "ar": slow}, "infilling": {"auto": slow}})}
    assert set(rows) == {"auto_vs_ar", "auto_vs_ar/chat"}
    assert rows["auto_vs_ar"].ratio == rows["auto_vs_ar/chat"].ratio == 2.0


def test_kinds_come_in_turns_and_nothing_is_measured_that_was_learnt_from() -> None:
    """Whatever number of prompts each has."""
    assert mixed({"a": ("1", "2"), "b": ("3",)}) == [("a", "1"), ("b", "3"), ("a", "2")]
    for texts in (*BAG.values(), puzzles(6)):
        assert len({*half(texts, 0, 3), *half(texts, 1, 3)}) == 6
    assert content_of([], puzzles(1)[0]) == "puzzle"


def test_medians_of_all_contestants(tiny: Model, tmp_path: Path) -> None:
    """Two rounds of one kind: every mode has answered once for each prompt, `auto` as `ar` does."""
    bag = Bag(Book(tmp_path / "routes.json"), 12)
    bag.add(tiny, ("auto", "ar"), ["chat"])
    found = bag.run({"chat": BAG["chat"][:2]}, 2, "measuring")["chat"]
    assert {name: len(result.seconds) for name, result in found.items()} == {"auto": 2, "ar": 2}
    assert [answer.text for answer in found["auto"].answers] == [answer.text for answer in found["ar"].answers]
    assert len(bag.points) == 4


def test_requests_of_every_kind(tiny: Model) -> None:
    """All can be made and explained; gaps go to those that fill them."""
    asked, engine = Asked(tiny, 24), tiny.engine()
    kinds = {
        kind: {engine.router.explain(asked.request(kind, text, "auto"), 1).kind for text in texts}
        for kind, texts in BAG.items()
    }
    assert kinds == {
        "chat": {"open"},
        "extraction": {"copying"},
        "json": {"constraint"},
        "infilling": {"gaps"},
        "code": {"code"},
        "arithmetic": {"arithmetic"},
    }
    assert not serves("ar", "infilling", ["diffusion"])
    assert not serves("transformers_ar", "json", ["diffusion"])
