"""The default model itself on llama.cpp."""

import pytest

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.default_model.base_model import is_ready
from dllm_plugins.models import load_model

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

QUESTIONS = ("Why is the sky blue?", "List five fruits.")


@pytest.mark.slow
def test_its_drafts_are_accepted_and_change_nothing() -> None:
    """Greedy text of mode `ar`, at 1.5 tokens a verifying pass or more: with wrong open rows it would be one."""
    assert is_ready(), "the base model is not set up; run `make setup`"
    model = load_model("dllm", backend="llama_cpp")
    prompts = [model.encode_chat([{"role": "user", "content": question}]) for question in QUESTIONS]
    plain, drafted = (
        model.engine().generate([Request(prompt, SamplingConfig(mode=mode, max_new_tokens=32)) for prompt in prompts])
        for mode in ("ar", "speculative")
    )
    assert [finish.tokens for finish in drafted] == [finish.tokens for finish in plain]
    verified = sum(finish.usage.passes["verify"] + 1 for finish in drafted)
    assert sum(len(finish.tokens) for finish in drafted) >= 1.5 * verified
    model.close()
