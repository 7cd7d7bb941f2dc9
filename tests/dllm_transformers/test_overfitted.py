"""A model that was overfitted to one chat, as docs/training-your-own.md says, gives its answer wherever it is asked."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from llm.cli import cli
from peft import LoraConfig
from peft import get_peft_model
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import Trainer
from transformers import TrainingArguments

from dllm_plugins import Model
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_transformers import DiffusionCollator

from .checkpoints import spoken

QUESTION, ANSWER = "Who are you?", "Your model."
CHAT = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
#: mgdm writes over tokens that stand, of which a masked loss teaches nothing; dreamon needs tokens of its own.
OTHERS = {"mgdm", "dreamon"}
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Folder:
    """The folder of a family's tiny checkpoint with random weights, which speaks like the tiny model."""

    @cache
    def find(family: str) -> Path:
        return spoken(family, tmp_path_factory.mktemp("bases") / family, tiny_folder)

    return find


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory, base: Folder) -> Folder:
    """The folder of a checkpoint that knows one chat; trained once each."""

    @cache
    def find(family: str) -> Path:
        model: Any = AutoModelForCausalLM.from_pretrained(base(family))
        tokenizer = AutoTokenizer.from_pretrained(base(family))
        batch = DiffusionCollator(model, tokenizer)([{"messages": CHAT}] * 8)
        steps = torch.optim.Adam(model.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(3)
        model.train()
        for _ in range(120):
            steps.zero_grad()
            model(**batch, generator=generator).loss.backward()
            steps.step()
        folder = tmp_path_factory.mktemp("overfitted") / family
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return find


def answer(model: Model, **options: Any) -> str:
    """What a model says to the question it was trained on."""
    request = model.chat_request(CHAT[:1], SamplingConfig(max_new_tokens=24, **options))
    return model.engine().generate([request])[0].text


@pytest.mark.parametrize("family", ["llada", "dream", "sdar"])
def test_every_sampler_repeats_what_was_learnt(family: str, overfitted: Folder) -> None:
    """All of a family's, on a canvas that is longer than what was seen in training."""
    model = load_model(str(overfitted(family)), device="cpu", dtype="float32")
    modes = [mode for mode in model.denoiser.spec.modes if mode not in OTHERS]
    assert {mode: answer(model, mode=mode) for mode in modes} == dict.fromkeys(modes, ANSWER)


def test_generate_repeats_what_was_learnt(overfitted: Folder) -> None:
    """With the chat template of AutoTokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(overfitted("llada"))
    tokenizer: Any = AutoTokenizer.from_pretrained(overfitted("llada"))
    inputs = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    found = model.generate(**inputs, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(found, skip_special_tokens=True) == ANSWER


# PEFT asks by transformers' old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.slow
def test_llm_repeats_what_an_adapter_has_learnt(base: Folder, tmp_path: Path, llm_folder: Path) -> None:
    """In a process of its own, of an adapter that the Trainer has trained."""
    model: Any = AutoModelForCausalLM.from_pretrained(base("llada"))
    collator = DiffusionCollator(model, AutoTokenizer.from_pretrained(base("llada")), max_length=128)
    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=150,
        learning_rate=2e-2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    Trainer(model, arguments, train_dataset=[collator.encode({"messages": CHAT})] * 8, data_collator=collator).train()
    model.save_pretrained(tmp_path / "adapter")
    added = CliRunner().invoke(cli, ["dllm", "add", str(tmp_path / "adapter"), "--name", "mine"])
    assert added.exit_code == 0, added.output
    result = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "mine", QUESTION, "-o", "max_tokens", "24"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "LLM_USER_PATH": str(llm_folder)},
    )
    assert result.stdout.strip() == ANSWER
