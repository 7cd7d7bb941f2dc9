"""Mode `auto` through every host: each says what ran, and what is explained beforehand is what runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.__main__ import main
from dllm_plugins.constraints.values import Regex
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


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Any:
    """The tiny base in transformers, with the denoiser beside it."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


def test_transformers_checks_the_options_of_the_mode_that_runs(loaded: Any, tiny_folder: Path, folder: Path) -> None:
    """A rule for what a prompt is about, or what it is held to, names the mode; rows of a batch may have two."""
    words = [5, 9, 77, 120] * 20
    again, other = torch.tensor([words]), torch.tensor([[*range(5, 85)]])
    common: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    common |= {"custom_generate": block_diffusion, "denoiser": tiny_folder.parent / "denoiser.safetensors"}

    def said(prompt: Any, mode: str, **options: Any) -> Any:
        return loaded.generate(prompt, mode=mode, **common, **options)

    (folder / "routes.toml").write_text('copying = "diffusion"\n')
    with pytest.raises(ValueError, match=r"suppress_tokens=\[3\] .*mode 'diffusion' commits tokens in any order"):
        said(again, "auto", suppress_tokens=[3])
    assert said(other, "auto", suppress_tokens=[3]).tolist() == said(other, "ar", suppress_tokens=[3]).tolist()
    with pytest.raises(ValueError, match="option block_length=8 has no effect in mode 'speculative'"):
        said(other, "auto", block_length=8)
    assert said(again, "auto", block_length=8).tolist() == said(again, "diffusion", block_length=8).tolist()
    both = torch.cat([again, other])
    found = said(both, "auto", repetition_penalty=1.5, output_scores=True, return_dict_in_generate=True)
    assert [row["mode"] for row in found.usage] == ["diffusion", found.usage[1]["mode"]] != ["diffusion"] * 2
    for place, mode in enumerate(("diffusion", "ar")):
        alone = said(both[place : place + 1], mode, repetition_penalty=1.5)
        assert found.sequences[place].tolist() == alone[0].tolist()


def test_transformers_knows_that_a_constraint_is_one(loaded: Any, tiny_folder: Path, folder: Path) -> None:
    """Its rule counts, not that of free text."""
    (folder / "routes.toml").write_text('constraint = "diffusion"\n')
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    common: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "tokenizer": tokenizer}
    common |= {"custom_generate": block_diffusion, "denoiser": tiny_folder.parent / "denoiser.safetensors"}
    common |= {"constraint": Regex("[a-c]{5}"), "block_length": 8}
    prompt = torch.tensor([[5, 9, 77, 120, 33]])
    found = loaded.generate(prompt, mode="auto", **common)
    assert found.tolist() == loaded.generate(prompt, mode="diffusion", **common).tolist()
    with pytest.raises(ValueError, match=r"suppress_tokens=\[3\] .*mode 'diffusion' commits tokens in any order"):
        loaded.generate(prompt, mode="auto", suppress_tokens=[3], **common)
