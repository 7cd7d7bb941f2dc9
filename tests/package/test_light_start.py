"""What is imported when: each question is put to an interpreter of its own."""

import os
import subprocess
import sys

import pytest

#: What nobody waits for before it is used.
HEAVY = frozenset({"torch", "transformers", "accelerate", "gguf", "rich", "tokenizers", "safetensors", "llama_cpp"})
UNUSED = frozenset({"accelerate", "gguf", "rich", "llama_cpp", "scipy", "sympy", "pandas"})
#: Every llm command waits for these of ours.
PLUGIN = "from llm.plugins import load_plugins; load_plugins(); import llm; llm.get_models()"
HIDDEN = ("accelerate", "gguf", "rich", "pip", "llama_cpp")
ANSWER = """
from dllm_plugins import Request, SamplingConfig, load_model
model = load_model("dllm")
tokens = model.encode_chat([{"role": "user", "content": "Why is the sky blue?"}])
assert model.engine().generate([Request(tokens, SamplingConfig(max_new_tokens=2))])[0].tokens
"""


def imported(code: str, **environment: str) -> set[str]:
    """The modules there are behind some code."""
    shown = f"{code}\nimport sys; print(*(name for name, module in sys.modules.items() if module is not None))"
    result = subprocess.run(
        [sys.executable, "-c", shown], capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def hiding(*names: str) -> str:
    """Code behind which these are not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({names!r}))"


def test_importing_the_engine_s_package_imports_nothing() -> None:
    """Its names are there on first use."""
    ours = {name for name in imported("import dllm_plugins") if name.startswith(("dllm_", "llm_dllm", "langchain"))}
    assert ours == {"dllm_plugins"}


def test_llm_starts_without_what_answering_needs() -> None:
    """Every command of llm loads the plug-in and asks for its models: no torch, and none of our commands or options."""
    found = imported(PLUGIN, LLM_LOAD_PLUGINS="dllm-plugins")
    assert "llm_dllm" in found
    assert not found & HEAVY
    # openai takes it, and this with it, where it is installed.
    assert "shlex" not in found or "aiohttp" in found
    ours = {name for name in found if name.startswith(("dllm_", "llm_dllm."))}
    assert not {name for name in ours if name.endswith(("_command", "_commands", ".config", ".events", ".options"))}
    assert len(ours) < 20, sorted(ours)


@pytest.mark.slow
def test_langchain_starts_without_what_answering_needs() -> None:
    """Classes, options and what a model says of itself: a server may answer, and then nothing else is needed."""
    found = imported("from langchain_dllm import ChatDLLM; assert ChatDLLM().profile['max_input_tokens']")
    assert not found & (HEAVY - {"rich"})


@pytest.mark.slow
def test_listing_what_there_is_imports_no_classes_of_models() -> None:
    """All families, samplers and rules, but nothing of transformers: families name their classes."""
    found = imported("from dllm_plugins import plugins; plugins.modes(); from dllm_plugins.families import layouts")
    assert "dllm_plugins.families.llada2" in found
    assert "transformers" not in found
    assert not found & UNUSED


@pytest.mark.slow
def test_answering_imports_only_what_it_uses() -> None:
    """The default model runs its own layers and reads its own file: no transformers, and no extra at all."""
    found = imported(f"{hiding(*HIDDEN, 'transformers', 'huggingface_hub')}\n{ANSWER}")
    assert {"torch", "tokenizers"} <= found
    assert not found & UNUSED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import dllm_plugins.gguf.header", "reading and writing GGUF files needs gguf"),
        ("from dllm_plugins import load_model; load_model('a.gguf')", "pip install 'dllm-plugins[gguf]'"),
        ("from click.testing import CliRunner; from llm.cli import cli; print(CliRunner().invoke(cli, ['dllm', 'watch',"
         " 'hi', '-o', 'max_tokens', '3']).output)", "`llm dllm watch` needs rich"),
        (f"{hiding('llm')}; import llm_dllm", "llm_dllm needs llm; install it with `pip install 'dllm-plugins[llm]'`"),
    ],
)  # fmt: skip
def test_what_needs_an_extra_says_which(code: str, words: str) -> None:
    """An error of ours with the command that installs it."""
    result = subprocess.run(
        [sys.executable, "-c", f"{hiding(*HIDDEN)}\n{code}"], capture_output=True, text=True, check=False
    )
    assert words in result.stdout + result.stderr
