"""Mode `auto` through every host: each says what ran, and what is explained beforehand is what runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.__main__ import main
from dllm_plugins.tools.tool import Tool
from dllm_transformers import block_diffusion
from langchain_dllm import ChatDLLM

Run = Callable[..., str]
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]})


@pytest.fixture
def run(tiny_folder: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call `llm` with arguments, the tiny model in place of the default one; what it printed."""
    from llm.cli import cli

    assert llm_folder.exists()
    monkeypatch.setenv("DLLM_BASE", str(tiny_folder))
    monkeypatch.setenv("DLLM_DENOISER", str(tiny_folder.parent / "denoiser.safetensors"))
    monkeypatch.setenv("DLLM_DTYPE", "float32")

    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.output

    return call


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ((), {}),
        (("--schema", SCHEMA), {"schema": json.loads(SCHEMA)}),
        (("-o", "temperature", "0.5"), {"temperature": 0.5}),
    ],
    ids=["open", "constraint", "sampled"],
)
def test_llm_explains_what_then_runs(run: Run, more: tuple[str, ...], options: dict[str, Any]) -> None:
    """With the options of the prompt."""
    import llm

    for _ in range(3):
        told = run("dllm", "info", "--route", "why?", "-o", "max_tokens", "30", *more).strip()
        found = llm.get_model("dllm").prompt("why?", mode="auto", max_tokens=30, stream=True, **options)
        found.text()
        assert found.response_json is not None
        assert found.response_json["route"] == told
        assert f"; {found.response_json['mode']}: " in told


def test_a_command_without_llm_explains(run: Run, tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, in the same words; options are those of the engine."""
    told = run("dllm", "info", "--route", "why?", "-o", "max_tokens", "30")

    monkeypatch.setattr("dllm_plugins.models.load_model", {"tiny": tiny}.__getitem__)

    def ask(*arguments: str) -> str:
        return CliRunner().invoke(main, ["info", *arguments]).output

    assert ask("tiny", "--route", "why?", "-o", "max_new_tokens", "30") == told
    assert ask("--route", "why?", "-o", "mode", "ar") == "ar, as asked for\n"
    assert "give it with --route" in ask("--rows", "2")


def test_llm_explains_gaps_and_named_modes(run: Run) -> None:
    """And refuses options without a prompt."""
    told = run("dllm", "info", "--route", "a b", "--suffix", " c", "-o", "max_tokens", "5")
    assert told.startswith("gaps, greedy, short prompt, 1 row: the text of diffusion; diffusion: no other mode")
    assert run("dllm", "info", "--route", "a", "-o", "mode", "ar").strip() == "ar, as asked for"
    assert "give it with --route" in run("dllm", "info", "--schema", SCHEMA, code=1)
    shown = run("dllm", "watch", "a b", "--suffix", " c", "-o", "mode", "auto", "-o", "max_tokens", "5")
    assert "mode diffusion (auto)" in shown


def test_langchain(tiny_folder: Path) -> None:
    """The statistics are the message's metadata; a batch is routed together."""
    denoiser = str(tiny_folder.parent / "denoiser.safetensors")
    chat = ChatDLLM(base=str(tiny_folder), denoiser=denoiser, dtype="float32", mode="auto", max_tokens=12)
    plain = ChatDLLM(base=str(tiny_folder), denoiser=denoiser, dtype="float32", mode="ar", max_tokens=12)
    questions: list[Any] = ["why?", "how?", "who?"]
    found = chat.batch(questions)
    assert [message.content for message in found] == [message.content for message in plain.batch(questions)]
    assert all("the text of speculative" in str(message.response_metadata) for message in found)


def test_transformers(tiny_folder: Path) -> None:
    """Greedy ids of the base; options of the generation config go where the mode would take them."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    prompt = torch.tensor([[5, 9, 77, 120, 33]])
    common: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "repetition_penalty": 1.2}
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    plain = model.generate(prompt, **common).tolist()
    for _ in range(3):
        ours = model.generate(prompt, custom_generate=block_diffusion, denoiser=denoiser, mode="auto", **common)
        assert ours.tolist() == plain


def test_tools(tiny: Model) -> None:
    """A call that is asked for is held to its schema, and routed as a constraint is."""
    tool = Tool("look", "Looks.", {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]})
    config = tiny.with_tools(SamplingConfig(mode="auto", max_new_tokens=90), [tool], "look")
    [finish] = tiny.engine().generate([Request([5, 9, 77], config)])
    assert (finish.usage.route or "").startswith("constraint")
    assert '"look"' in finish.text


def test_an_unknown_mode_names_auto(tiny: Model) -> None:
    """Beside those of the model."""
    with pytest.raises(ValueError, match="and auto"):
        tiny.engine().admit(Request([5], SamplingConfig(mode="luck")))
