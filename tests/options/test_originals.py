"""Arguments of the originals: one table, true to our options, complete for the golden data; every host answers."""

import importlib.util
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.plays import PLAYS
from dllm_plugins.errors import OptionError
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.options.originals.table import ORIGINALS
from dllm_plugins.options.originals.table import answer
from dllm_transformers import DiffusionModelForCausalLM
from langchain_dllm import ChatDLLM
from llm_dllm.options import Options

from ..golden.cases import CLONED
from ..golden.cases import case_folders

ROOT = Path(__file__).parents[2]
LLADA = CLONED["llada_dense"] / "checkpoint"


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda original: original.name)
def test_what_it_names_exists(original: Any) -> None:
    """An option of this very sampler, one of its own, of loading or of a request; or a reason."""
    sampler = plugins.modes()[original.sampler]
    own = sampler.settings.model_fields.keys() - SamplingConfig.model_fields.keys()
    known = {
        "option": sampler.options | COMMON_OPTIONS,
        "preset_options": own,
        "loading": {field.name for field in fields(LoadOptions)},
        "request": {field.name for field in fields(Request)},
    }
    for argument, here in original.arguments.items():
        assert here.name in known[here.kind] if here.kind != "nothing" else here.note, argument


def test_every_sampler_of_a_family_has_an_original() -> None:
    """And every original of the golden data is in the table, with each argument that was set there."""
    own = {name for layout in LAYOUTS.values() for name in (*layout.modes.values(), *layout.samplers)}
    assert {original.sampler for original in ORIGINALS} == own - {"flow_uniform", "nemotron_repair"}
    table = {original.name: original.arguments for original in ORIGINALS}
    assert PLAYS.keys() <= table.keys()
    for folder in case_folders():
        for setting in Case(folder).settings:
            # `cache` says which of three functions was called.
            assert setting.params.keys() - {"cache"} <= table[setting.sampler].keys(), setting.name


def test_answers() -> None:
    """By what the argument is here, told apart by sampler where it is not the same everywhere."""
    assert str(answer("gen_length", 128)) == "gen_length=128 is called max_new_tokens here"
    assert str(answer("alg", "p2")) == "alg='p2' is given as preset_options={'alg': 'p2'} here"
    assert "has no counterpart here: stream the answer" in str(answer("output_history", True))
    assert "mask_id of loading does" in str(answer("mask_id", 5))
    everywhere = str(answer("remasking", "random"))
    assert "with llada, fast_dllm it is called rule here" in everywhere
    assert "with mdlm, bd3lm it is given as preset_options={'remasking': 'random'}" in everywhere
    assert str(answer("remasking", "random", ["llada"])).startswith("remasking='random' is called rule here")
    assert answer("nonsense", 1) is None


def _generate(**given: Any) -> Any:
    model = DiffusionModelForCausalLM.from_pretrained(LLADA, mask_id=236)
    return model.generate(torch.tensor([[7, 8, 9]]), max_new_tokens=4, do_sample=False, **given)


HOSTS: dict[str, tuple[Callable[..., Any], str]] = {
    "engine": (SamplingConfig, "max_new_tokens"),
    "llm": (Options, "max_tokens"),
    "langchain": (ChatDLLM, "max_tokens"),
    "langchain call": (lambda **given: ChatDLLM().invoke("hi", **given), "max_tokens"),
    "transformers": (_generate, "max_new_tokens"),
}


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_answers(host: str) -> None:
    """Before anything is loaded or decoded, in the host's own words."""
    ask, length = HOSTS[host]
    for argument, words in (
        ("gen_length", f"called {length} here"),
        ("cfg_scale", "called guidance here"),
        ("denoising_steps", "called steps here"),
        ("alg_temp", "preset_options"),
        ("output_history", "no counterpart here"),
    ):
        # LangChain's constructor raises pydantic's error around ours.
        with pytest.raises(ValueError, match=f"{argument}=1.*{words}"):
            ask(**{argument: 1})


def test_preset_options_answer_for_their_sampler() -> None:
    """A name of the original, in the place of a sampler's own."""
    with pytest.raises(OptionError, match="remasking='random' is called rule here"):
        plugins.modes()["llada"].read(SamplingConfig(preset_options={"remasking": "random"}))


def test_the_page_is_the_table() -> None:
    """What docs/originals.md says is what the code answers."""
    spec = importlib.util.spec_from_file_location("docs_check", ROOT / "docs" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    page = (ROOT / "docs" / "originals.md").read_text(encoding="utf-8")
    assert check.generated(page) == page
    for original in ORIGINALS:
        assert original.name in page
