"""The tools that people train with, unchanged: TRL's SFTTrainer, accelerate's processes, and what trainers offer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import Trainer
from transformers import TrainingArguments
from trl import SFTConfig
from trl import SFTTrainer

from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_transformers import DiffusionCollator
from dllm_transformers.sft import DiffusionSFTTrainer

from .checkpoints import copy_of
from .checkpoints import spoken

QUESTION = [{"role": "user", "content": "Who are you?"}]
ANSWERS = ("Your model.", "I am a model, and yours.", "A small one.", "Nobody you know.")
CHATS = [[*QUESTION, {"role": "assistant", "content": answer}] for answer in ANSWERS]
FAMILIES = ["llada", "dream", "sdar"]
Folder = Callable[[str], Path]
#: TRL and PEFT use transformers' old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Folder:
    """The folder of a family's tiny checkpoint with random weights."""

    @cache
    def find(family: str) -> Path:
        return spoken(family, tmp_path_factory.mktemp("bases") / family, tiny_folder)

    return find


def parts(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def settings(out: Path, kind: type[TrainingArguments] = TrainingArguments, **more: Any) -> Any:
    """Four steps of two texts on the CPU."""
    usual: dict[str, Any] = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
    }
    if kind is SFTConfig:
        usual |= {"bf16": False, "gradient_checkpointing": False, "shuffle_dataset": False}
    return kind(output_dir=str(out), **{**usual, **more})


def losses(trainer: Trainer) -> list[float]:
    """Of each step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def encoded(model: Any, tokenizer: Any) -> list[dict[str, list[int]]]:
    collator = DiffusionCollator(model, tokenizer)
    return [collator.encode({"messages": chat}) for chat in CHATS]


def plain(folder: Path, out: Path, **more: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What the Trainer of transformers makes of the chats."""
    model, tokenizer = parts(folder)
    collator = DiffusionCollator(model, tokenizer)
    trainer = Trainer(model, settings(out, **more), train_dataset=encoded(model, tokenizer), data_collator=collator)
    trainer.train()
    return losses(trainer), model.state_dict()


def forms() -> dict[str, Dataset]:
    """The same chats in the forms that TRL knows."""
    return {
        "messages": Dataset.from_list([{"messages": chat} for chat in CHATS]),
        "prompt": Dataset.from_list([{"prompt": chat[:1], "completion": chat[1:]} for chat in CHATS]),
    }


@pytest.mark.parametrize("form", ["messages", "prompt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sft_trainer_trains_as_the_trainer_does(family: str, form: str, base: Folder, tmp_path: Path) -> None:
    """To the bit: the family's own loss, prompts left out and ends of text learnt, from chats in TRL's forms."""
    expected, weights = plain(base(family), tmp_path / "plain")
    model, tokenizer = parts(base(family))
    data = forms()[form]
    trainer = DiffusionSFTTrainer(
        model, settings(tmp_path / "sft", SFTConfig), train_dataset=data, eval_dataset=data, processing_class=tokenizer
    )
    assert [dict(row) for row in trainer.train_dataset] == encoded(model, tokenizer)
    trainer.train()
    assert losses(trainer) == expected
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert 0 < trainer.evaluate()["eval_loss"] < 100
    assert 0 < trainer.evaluate(data)["eval_loss"] < 100


def test_sft_trainer_reads_texts(base: Folder, tmp_path: Path) -> None:
    """All of a text is learnt, and of a prompt with its completion the latter; both end in the end of text."""
    model, tokenizer = parts(base("llada"))
    collator = DiffusionCollator(model, tokenizer)
    found = collator.encode({"prompt": "One two", "completion": " three four"})
    learnt = [label for label in found["labels"] if label != -100]
    assert tokenizer.decode(learnt) == " three four" + tokenizer.decode([collator.end_id])
    assert tokenizer.decode(found["input_ids"][: -len(learnt)]) == "One two"
    rows = [{"text": "One two three"}]
    trainer = DiffusionSFTTrainer(
        model, settings(tmp_path, SFTConfig), train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    assert dict(trainer.train_dataset[0]) == collator.encode(rows[0])
    for wrong, match in (
        ({"prompt": "One", "completion": CHATS[0][1:]}, "two of a kind"),
        ({"prompt": QUESTION, "completion": CHATS[0]}, "has 2 messages"),
    ):
        with pytest.raises(RequestError, match=match):
            collator.encode(wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_trainer_trains_adapters(family: str, base: Folder, tmp_path: Path) -> None:
    """By its `peft_config`, with the defaults that it has: bfloat16 and gradient checkpointing."""
    model, tokenizer = parts(base(family))
    batch = DiffusionCollator(model, tokenizer)([{"messages": chat} for chat in CHATS] * 8)

    def mean_loss(trained: Any) -> float:
        with torch.no_grad():
            return float(trained.eval()(**batch, generator=torch.Generator().manual_seed(5)).loss)

    before = mean_loss(model)
    trainer = DiffusionSFTTrainer(
        model,
        settings(tmp_path, SFTConfig, max_steps=16, learning_rate=1e-2, bf16=True, gradient_checkpointing=True),
        train_dataset=forms()["prompt"],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    # Without the bfloat16 that the trainer has put around it.
    learnt = mean_loss(trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False))
    assert learnt < 0.95 * before
    trainer.save_model(str(tmp_path / "adapter"))
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert mean_loss(again) == pytest.approx(learnt, rel=1e-4)


def test_what_sft_trainer_cannot_do_is_refused(base: Folder, tmp_path: Path, tiny_folder: Path) -> None:
    """Losses of next tokens, texts behind one another in a row, and families whose loss nobody published."""
    model, tokenizer = parts(base("llada"))
    data = forms()["prompt"]
    arguments = settings(tmp_path, SFTConfig)
    unchanged = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    with pytest.raises(OptionError, match=r"fused_lm_head=True asks .* DiffusionSFTTrainer"):
        unchanged.train()
    for name, value in (("packing", True), ("loss_type", "dft"), ("assistant_only_loss", True)):
        wrong = settings(tmp_path, SFTConfig, **{name: value})
        with pytest.raises(OptionError, match=f"{name}={value!r} has no effect"):
            DiffusionSFTTrainer(model, wrong, train_dataset=data, processing_class=tokenizer)
    with pytest.raises(OptionError, match="formatting_func has no effect"):
        DiffusionSFTTrainer(model, arguments, None, data, processing_class=tokenizer, formatting_func=str)
    with pytest.raises(OptionError, match="processing_class is not given"):
        DiffusionSFTTrainer(model, arguments, train_dataset=data)
    with pytest.raises(OptionError, match="model is a Linear"):
        DiffusionSFTTrainer(torch.nn.Linear(1, 1), arguments, train_dataset=data)
    unknown: Any = AutoModelForCausalLM.from_pretrained(copy_of("illada", tmp_path / "illada", tiny_folder))
    with pytest.raises(OptionError, match="no loss of its own for illada"):
        DiffusionSFTTrainer(unknown, arguments, train_dataset=data, processing_class=tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_ways_to_save_memory_change_nothing(family: str, base: Folder, tmp_path: Path) -> None:
    """Checkpointing, to rounding; bfloat16, to its precision."""
    expected, weights = plain(base(family), tmp_path / "plain")
    again, others = plain(base(family), tmp_path / "again", gradient_checkpointing=True)
    assert again == pytest.approx(expected, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-4, atol=1e-5)
    assert plain(base(family), tmp_path / "half", bf16=True)[0] == pytest.approx(expected, rel=0.05)


def test_sft_trainer_goes_on_from_a_checkpoint(base: Folder, tmp_path: Path) -> None:
    """To the bit as if it had never been interrupted."""

    def train(out: Path, goes_on: Path | None) -> tuple[list[float], dict[str, torch.Tensor]]:
        model, tokenizer = parts(base("sdar"))
        arguments = settings(out, SFTConfig, save_strategy="steps", save_steps=2)
        trainer = DiffusionSFTTrainer(model, arguments, train_dataset=forms()["messages"], processing_class=tokenizer)
        trainer.train(resume_from_checkpoint=None if goes_on is None else str(goes_on))
        return losses(trainer), model.state_dict()

    expected, whole = train(tmp_path / "whole", None)
    found, resumed = train(tmp_path / "resumed", tmp_path / "whole" / "checkpoint-2")
    assert found == expected
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


#: What each process runs: everything is masked, so that no noise depends on who draws it.
_JOB = """
import json
import sys
import torch
from tests.dllm_transformers.test_trainers import everything_masked

torch.set_num_threads(1)
everything_masked(sys.argv[1], sys.argv[2], 1)
"""


def everything_masked(folder: Path | str, out: Path | str, accumulation: int) -> None:
    """Train on texts of unequal lengths, one each process at a time; what came of it is written to found.json."""
    model, tokenizer = parts(Path(folder))
    model.objective = replace(model.training_objective(), low=1.0)
    arguments = settings(
        Path(out),
        max_steps=3,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        optim="sgd",
    )
    collator = DiffusionCollator(model, tokenizer)
    trainer = Trainer(model, arguments, train_dataset=encoded(model, tokenizer), data_collator=collator)
    trainer.train()
    trainer.save_model()
    if trainer.is_world_process_zero():
        found = {"processes": arguments.world_size, "losses": losses(trainer)}
        (Path(out) / "found.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(base: Folder, tmp_path: Path) -> None:
    """Each token counts alike, wherever it is: the same losses, and the same weights, within rounding.

    Dream's first token of a text is never predicted, which the Trainer has to know when it counts.
    """
    (tmp_path / "job.py").write_text(_JOB)
    everything_masked(base("dream"), tmp_path / "one", 2)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, str(tmp_path / "job.py"), str(base("dream")), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name / "found.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    expected, found = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
