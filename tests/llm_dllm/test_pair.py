"""`llm dllm pair`: two models under one name, here and in other hosts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from langchain_dllm import ChatDLLM

from ..pairs.conftest import drafter_folder
from ..pairs.conftest import own_pairs

Run = Callable[..., Result]
__all__ = ["drafter_folder", "own_pairs"]


@pytest.mark.usefixtures("own_pairs")
def test_a_pair_answers(run: Run, tiny_folder: Path, drafter_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In llm and LangChain, under its name, the text of the model that verifies; listed, explained, forgotten."""
    run("dllm", "add", str(drafter_folder), "--name", "small")
    said = run("dllm", "pair", "both", "--ar", str(tiny_folder), "--diffusion", "small", "--draft-length", "3").stdout
    assert f"Registered both: {tiny_folder} verifies, {drafter_folder} drafts" in said
    asked: list[Any] = ["-o", "max_tokens", "14", "-o", "temperature", "0.7", "-o", "seed", "3"]
    plain = run("-m", "dllm", "how?", *asked, "-o", "mode", "ar").stdout
    assert run("-m", "both", "how?", *asked).stdout == plain
    assert "mode pair" in run("dllm", "watch", "-m", "both", "how?", *asked).stdout
    shown = run("dllm", "models").stdout
    assert f"both (pair)\n  verifies   {tiny_folder}\n  drafts     {drafter_folder}" in shown
    about = run("dllm", "info", "-m", "both").stdout
    assert f"{tiny_folder} verifies" in about
    assert "pair, ar, alternating, diffusion" in about
    # The other model answers in its own modes, and both in turns.
    brief: list[Any] = ["-o", "max_tokens", "9"]
    assert (
        run("-m", "both", "how?", *brief, "-o", "mode", "diffusion").stdout == run("-m", "small", "how?", *brief).stdout
    )
    turns = run("dllm", "watch", "-m", "both", "how?", *brief, "-o", "mode", "alternating").stdout
    assert "mode alternating" in turns
    told = run("dllm", "info", "--route", "how?", "-m", "both", *brief).stdout
    assert f"{tiny_folder} answers" in told
    chat = ChatDLLM(model="both", max_tokens=14, temperature=0.7, seed=3, dtype="float32")
    answer = chat.invoke("how?")
    assert answer.text.strip() == plain.strip()
    assert answer.response_metadata["statistics"]["passes"]["draft"] > 0
    for arguments, error in (
        (("both", "--ar", "dllm", "--diffusion", "small"), "the name 'both' is taken"),
        (("more", "--ar", "small", "--diffusion", "small"), "cannot verify drafts"),
        (("more", "--ar", "dllm", "--diffusion", "nothing"), "unknown model 'nothing'"),
    ):
        assert error in " ".join(run("dllm", "pair", *arguments, code=1).output.split())
    assert "both is no longer registered" in run("dllm", "remove", "both").stdout
    assert "(pair)" not in run("dllm", "models").stdout
