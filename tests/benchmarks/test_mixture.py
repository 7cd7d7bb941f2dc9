"""The mixed bag: who is asked what, and rows over the kinds that both were asked."""

from dllm_plugins import Model
from harness import Answer
from harness import Result
from mixture import rows_of
from mixture_bag import BAG
from mixture_bag import Asked
from mixture_bag import serves


def test_rows_are_over_what_both_were_asked() -> None:
    """Where one cannot fill gaps, those do not count for or against it."""
    fast, slow = Result((Answer("a", 10, 5),), (1.0,)), Result((Answer("b", 10, 10),), (2.0,))
    rows = {row.name: row for row in rows_of({"chat": {"auto": fast, "ar": slow}, "infilling": {"auto": slow}})}
    assert set(rows) == {"auto_vs_ar", "auto_vs_ar/chat"}
    assert rows["auto_vs_ar"].ratio == rows["auto_vs_ar/chat"].ratio == 2.0


def test_requests_of_every_kind(tiny: Model) -> None:
    """All can be made and explained; gaps go to those that fill them."""
    asked, engine = Asked(tiny, 24), tiny.engine()
    kinds = {kind: engine.router.explain(asked.request(kind, texts[0], "auto"), 1).kind for kind, texts in BAG.items()}
    assert kinds["infilling"] == "gaps"
    assert kinds["json"] == "constraint"
    called = {"chat": "open", "extraction": "copying", "code": "code", "arithmetic": "arithmetic"}
    assert {kind: kinds[kind] for kind in called} == called
    assert not serves("ar", "infilling", ["diffusion"])
    assert not serves("transformers_ar", "json", ["diffusion"])
