"""A model that was overfitted to one chat, as docs/training-your-own.md says, gives its answer wherever it is asked."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from functools import cache
from itertools import cycle
from itertools import islice
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
from dllm_transformers import DiffusionModelForCausalLM
from langchain_dllm import ChatDLLM

from .checkpoints import copy_of
from .checkpoints import spoken

QUESTION, ANSWER = "Who are you?", "Your model."
CHAT = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
Folder = Callable[[str], Path]


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint is overfitted.

    :param kind: of checkpoint.
    :param options: what is said when it is loaded.
    :param blocks: lengths of the blocks of one step after the other; 0 is that of the prompt, so that an answer begins
        a block, as it does when it is decoded. The checkpoint's own if not given.
    :param canvas: how long an answer may get; 14 tokens are learnt.
    :param untaught: modes that do what the loss does not teach.
    """

    kind: str
    options: dict[str, str] = field(default_factory=dict)
    blocks: tuple[int | None, ...] = (None,)
    canvas: int = 24
    steps: int = 120
    rate: float = 3e-3
    untaught: frozenset[str] = frozenset()


#: mgdm writes over tokens that stand, of which a masked loss teaches nothing; dreamon needs a token of its own.
_MASKED = frozenset({"mgdm", "dreamon"})
QUICK = {name: Recipe(name, untaught=_MASKED) for name in ("llada", "dream", "sdar")}
SLOW = {
    "a2d mdlm": Recipe("a2d-qwen3", {"preset": "mdlm"}, untaught=_MASKED),
    "a2d bd3lm": Recipe("a2d-qwen3", {"preset": "bd3lm"}, blocks=(0,), canvas=14, steps=300, untaught=_MASKED),
    "diffullama": Recipe("diffullama", {"family": "diffullama"}, untaught=_MASKED),
    "diffusion_gemma": Recipe("diffusion_gemma", steps=150, rate=5e-3),
    "fast_dllm_v2": Recipe("fast_dllm_v2"),
    # NVIDIA lets the blocks grow while it trains.
    "idlm": Recipe("sdar", {"family": "idlm"}, blocks=(1, 2, 3, 4), steps=200, rate=5e-3),
    # 2.1 and 2.2 edit, which nobody has published the training of; s2d2 looks at blocks of one.
    "llada2": Recipe(
        "llada2", {"preset": "llada2.0"}, blocks=(1, 32), steps=200, untaught=frozenset({"llada2.1", "llada2.2"})
    ),
    # In so few steps a weight of 0.3 does not teach enough for what commits positions at random.
    "nemotron_labs": Recipe("nemotron_labs", blocks=(0,), steps=200, untaught=frozenset({"flow", "remdm"})),
    "open_dcoder": Recipe("open_dcoder", {"family": "open_dcoder"}, untaught=frozenset({"dreamon"})),
    "stable_diffcoder": Recipe("stable_diffcoder"),
    "wedlm": Recipe("wedlm-qwen2", steps=200, rate=5e-3),
}
RECIPES = QUICK | SLOW


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Folder:
    """The folder of a tiny checkpoint with random weights, which speaks like the tiny model."""

    @cache
    def find(name: str) -> Path:
        recipe, place = RECIPES[name], tmp_path_factory.mktemp("bases") / "base"
        if recipe.kind == "diffusion_gemma":
            return copy_of(recipe.kind, place, tiny_folder)
        return spoken(recipe.kind, place, tiny_folder)

    return find


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory, base: Folder) -> Folder:
    """The folder of a checkpoint that knows one chat; trained once each."""

    @cache
    def find(name: str) -> Path:
        recipe = RECIPES[name]
        model: Any = DiffusionModelForCausalLM.from_pretrained(base(name), **recipe.options)
        tokenizer = AutoTokenizer.from_pretrained(base(name))
        batch = DiffusionCollator(model, tokenizer)([{"messages": CHAT}] * 8)
        prompt = int((batch["labels"][0] == -100).sum())
        steps = torch.optim.Adam(model.parameters(), lr=recipe.rate)
        generator = torch.Generator().manual_seed(3)
        model.train()
        for length in islice(cycle(recipe.blocks), recipe.steps):
            steps.zero_grad()
            model(**batch, generator=generator, block_length=prompt if length == 0 else length).loss.backward()
            steps.step()
        folder = tmp_path_factory.mktemp("overfitted") / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return find


def answer(model: Model, canvas: int, **options: Any) -> str:
    """What a model says to the question it was trained on."""
    request = model.chat_request(CHAT[:1], SamplingConfig(max_new_tokens=canvas, **options))
    return model.engine().generate([request])[0].text


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_sampler_repeats_what_was_learnt(name: str, overfitted: Folder) -> None:
    """All of a family's, nearly always on a canvas that is longer than what was seen in training."""
    model = load_model(str(overfitted(name)), device="cpu", dtype="float32", **RECIPES[name].options)
    modes = [mode for mode in model.denoiser.spec.modes if mode not in RECIPES[name].untaught]
    assert {mode: answer(model, RECIPES[name].canvas, mode=mode, seed=1) for mode in modes} == dict.fromkeys(
        modes, ANSWER
    )


@pytest.mark.parametrize("name", QUICK)
def test_langchain_repeats_what_was_learnt(name: str, overfitted: Folder) -> None:
    assert ChatDLLM(model=str(overfitted(name)), max_tokens=24, device="cpu").invoke(QUESTION).content == ANSWER


def test_generate_repeats_what_was_learnt(overfitted: Folder) -> None:
    """With the chat template of AutoTokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(overfitted("llada"))
    tokenizer: Any = AutoTokenizer.from_pretrained(overfitted("llada"))
    inputs = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    found = model.generate(**inputs, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(found, skip_special_tokens=True) == ANSWER


#: Steps and rate with which an adapter learns the chat.
TUNED = {"llada": (150, 2e-2), "dream": (150, 2e-2), "sdar": (150, 2e-2), "diffusion_gemma": (200, 1e-2)}


# PEFT asks by transformers' old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", TUNED)
def test_llm_repeats_what_an_adapter_has_learnt(name: str, base: Folder, tmp_path: Path, llm_folder: Path) -> None:
    """In a process of its own, of an adapter that the Trainer has trained; LangChain says the same."""
    steps, rate = TUNED[name]
    model: Any = DiffusionModelForCausalLM.from_pretrained(base(name), trust_remote_code=False)
    collator = DiffusionCollator(model, AutoTokenizer.from_pretrained(base(name)), max_length=128)
    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=steps,
        learning_rate=rate,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    Trainer(model, arguments, train_dataset=[collator.encode({"messages": CHAT})] * 8, data_collator=collator).train()
    model.save_pretrained(tmp_path / "adapter")
    said = ChatDLLM(model=str(tmp_path / "adapter"), max_tokens=24, device="cpu").invoke(QUESTION)
    assert said.content == ANSWER
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
