"""Every setting of the golden data through llama.cpp: reproduced, or refused for a reason that is known."""

from functools import cache

import pytest
from click.testing import CliRunner

from dllm_plugins.conformance.__main__ import main
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.check import check
from dllm_plugins.conformance.compare import Result

from ..golden.cases import CLONED
from ..golden.cases import case_folders

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

CASES = {folder.name: Case(folder) for folder in case_folders()}
#: Cases that llama.cpp cannot compute at all, by what the refusal says.
WHOLE = {
    "bert_chat": "no graph of llama.cpp is known to compute",
    "diffusion_gemma": "no graph of llama.cpp is known to compute",
    "wedlm_qwen2": "takes positions in order only",
    "wedlm_qwen3": "takes positions in order only",
}
#: Settings that it cannot, by a part of their name: they keep keys behind those computed anew.
PARTS = {
    "/dual": "approximate_cache='dual'",
    "block_cache": "cannot keep keys behind those it computes anew",
}


@cache
def results(name: str) -> tuple[Result, ...]:
    """Of a whole case, once."""
    return tuple(check(CASES[name], "llama_cpp"))


def refusal(result: Result) -> str | None:
    """What a refusal must say; None where there must be none."""
    if result.case in WHOLE:
        return WHOLE[result.case]
    if result.setting == "quirk_prompt_contains_mask":
        return "the prompt holds the mask id"
    return next((reason for part, reason in PARTS.items() if part in result.setting), None)


@pytest.mark.parametrize("name", CASES)
def test_every_setting(name: str) -> None:
    """Logits within 1e-4; tokens, canvases and passes as recorded, every call beyond a pass counted."""
    found = results(name)
    names = [result.setting for result in found]
    assert names[-len(CASES[name].settings) :] == [setting.name for setting in CASES[name].settings]
    assert names[0].startswith("logits")
    quirks = {setting.name for setting in CASES[name].settings if setting.quirk}
    for result in found:
        reason = refusal(result)
        if reason is not None:
            assert result.verdict == "REFUSED", result
            assert reason in result.detail
        else:
            assert result.verdict in ({"REPRODUCED", "CORRECTED"} if result.setting in quirks else {"REPRODUCED"}), (
                result
            )


def test_split_passes_are_counted() -> None:
    """What freezes is a call of its own here; the passes are the reference's."""
    found = {result.setting: result.detail for result in results("sdar")}
    assert found["static_b4_s4"] == "24 passes in 31 calls"
    alone = {result.setting: result.detail for result in results("llada_dense")}
    assert alone["two_per_step"] == "16 passes"


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--backend llama_cpp`; files are converted in a temporary folder, and nothing goes to the user's cache."""
    kept: list[str] = []
    monkeypatch.setattr("dllm_plugins.gguf.relabel.cache_folder", lambda: kept.append("cache"))
    found = CliRunner().invoke(main, ["--backend", "llama_cpp", str(CLONED["llada_dense"])])
    assert found.exit_code == 0, found.output
    assert "0 missed" in found.output
    assert "REPRODUCED" in found.output
    assert kept == []
