"""Original checkpoints from their folders alone: pipeline, tokenizers, a process that only imports."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from transformers import TextIteratorStreamer
from transformers import pipeline

from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.families.files import tokenizer_class
from dllm_transformers import DiffusionModelForCausalLM

from .checkpoints import change

#: transformers types its overloads too narrowly for models of registered classes.
text_generation: Any = pipeline
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}


def test_pipeline(llada: Path) -> None:
    """From a folder alone: text in, text out, chats, batches, options of loading."""
    generator = text_generation("text-generation", model=str(llada))
    generator.tokenizer.pad_token = "<unk>"
    found = generator("why?", return_full_text=False, **GREEDY)[0]["generated_text"]
    model, tokenizer = generator.model, generator.tokenizer
    ids = tokenizer("why?", return_tensors="pt")
    answer = model.generate(**ids, **GREEDY)[0, ids["input_ids"].shape[1] :]
    assert found == tokenizer.decode(answer, skip_special_tokens=True)
    texts = ["why?", "for,what?"]
    both = generator(texts, batch_size=2, return_full_text=False, **GREEDY)
    alone = [generator(text, return_full_text=False, **GREEDY) for text in texts]
    assert both == alone
    chat = generator([{"role": "user", "content": "hi"}], **GREEDY)[0]["generated_text"]
    assert chat[-1]["role"] == "assistant"
    other = text_generation("text-generation", model=str(llada), dtype="bfloat16", model_kwargs={"mask_id": 201})
    assert (other.model.dtype, other.model.spec.mask_id) == (torch.bfloat16, 201)


def test_pipeline_of_a_model(llada: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The class that loads what calls itself an ordinary model; streamers and stop strings as everywhere."""
    change(llada, model_type="qwen2")
    model = DiffusionModelForCausalLM.from_pretrained(llada, family="llada")
    tokenizer: Any = AutoTokenizer.from_pretrained(llada)
    capfd.readouterr()
    generator = text_generation("text-generation", model=model, tokenizer=tokenizer)
    whole = generator("why?", return_full_text=False, **GREEDY)[0]["generated_text"]
    assert "not supported" not in capfd.readouterr().err
    iterator = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=20, skip_special_tokens=True)
    ids = tokenizer("why?", return_tensors="pt")
    model.generate(**ids, streamer=iterator, block_length=4, steps=6, **GREEDY)
    answer = model.generate(**ids, block_length=4, steps=6, **GREEDY)[0, ids["input_ids"].shape[1] :]
    assert "".join(iterator) == tokenizer.decode(answer, skip_special_tokens=True)
    stop = next(letter for letter in tokenizer.decode(answer) if letter.isascii())
    cut = model.generate(**ids, block_length=4, steps=6, stop_strings=stop, tokenizer=tokenizer, **GREEDY)
    text = tokenizer.decode(cut[0, ids["input_ids"].shape[1] :])
    assert text.endswith(stop)
    assert text.count(stop) == 1
    assert whole


@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json and merges.txt"])
def test_tokenizers_that_name_code_of_their_own(llada: Path, files: str) -> None:
    """Dream's: a class transformers does not know, byte pairs in two files; nothing of it is run."""
    change(llada, model_type="Dream", architectures=["DreamModel"])
    place = llada / "tokenizer_config.json"
    own = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
    }
    place.write_text(json.dumps({**json.loads(place.read_text()), **own}))
    expected = tokenizer_class(llada).from_pretrained(llada)("why? so")["input_ids"]
    if files != "tokenizer.json":
        stored = json.loads((llada / "tokenizer.json").read_text())["model"]
        (llada / "vocab.json").write_text(json.dumps(stored["vocab"]))
        (llada / "merges.txt").write_text("#version: 0.2\n")
        (llada / "tokenizer.json").unlink()
    found = AutoTokenizer.from_pretrained(llada)
    assert found("why? so")["input_ids"] == expected
    assert found.decode(expected) == "why? so"
    assert tokenizer_class(llada).from_pretrained(llada)("why? so")["input_ids"] == expected


@pytest.mark.slow
def test_importing_is_all_it_takes(llada: Path) -> None:
    """A fresh process without a terminal: no question is asked, no code of the folder is looked for."""
    code = (
        "import sys, dllm_transformers\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline\n"
        "AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1]).native).__name__)"
    )
    command = [sys.executable, "-c", code, str(llada)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert result.stdout.split() == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages[0].content.nothing.at_all }}", "nothing"),
        ("{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}", "not rendered"),
        ("{% if %}", "is none"),
    ],
)
def test_a_template_that_fails(llada: Path, template: str, words: str) -> None:
    """For a chat that spells no control token, too; beside tools, where the engine cannot render, and cut short."""
    generator = text_generation("text-generation", model=str(llada))
    generator.tokenizer.chat_template = template
    with pytest.raises(RequestError, match=words):
        generator([{"role": "user", "content": "hi"}], **GREEDY)
    if "range" not in template:
        with pytest.raises(RequestError):
            generator([{"role": "user", "content": "hi"}], tools=[{"name": "clock"}], **GREEDY)


@pytest.mark.parametrize("options", [{"max_new_tokens": "9"}, {"telepathy": 1}, {"do_sample": 3}, {"seed": "x"}])
def test_arguments_of_a_pipeline(llada: Path, options: dict[str, Any]) -> None:
    """They are generate's, and refused as there."""
    generator = text_generation("text-generation", model=str(llada))
    with pytest.raises(OptionError, match=next(iter(options))):
        generator("why?", **{**GREEDY, **options})
