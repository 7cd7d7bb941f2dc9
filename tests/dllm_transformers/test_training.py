"""Training as users do it: the collator, the Trainer unchanged, and what a model has learnt afterwards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import Trainer
from transformers import TrainingArguments

from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_transformers import DiffusionCollator
from dllm_transformers import DiffusionModelForCausalLM

from .checkpoints import NEEDED
from .checkpoints import copy_of

CHAT = [{"role": "user", "content": "Hello there."}, {"role": "assistant", "content": "Good day."}]
LONGER = [*CHAT, {"role": "user", "content": "And you?"}, {"role": "assistant", "content": "I am well, thank you."}]
Made = Callable[[str], tuple[Any, Any, Path]]


@pytest.fixture
def made(tmp_path: Path, tiny_folder: Path) -> Made:
    """A tiny model, its tokenizer and its folder."""

    def make(name: str) -> tuple[Any, Any, Path]:
        folder = copy_of(name, tmp_path / name, tiny_folder)
        model = DiffusionModelForCausalLM.from_pretrained(folder)
        return model, AutoTokenizer.from_pretrained(tiny_folder), folder

    return make


def few(vocabulary: int, length: int = 8) -> list[dict[str, list[int]]]:
    """Two texts of token ids; the first token is a prompt."""
    ids = torch.randint(6, min(60, vocabulary), (2, length), generator=torch.Generator().manual_seed(1)).tolist()
    return [{"input_ids": row, "labels": [-100, *row[1:]]} for row in ids]


@pytest.mark.parametrize("name", ["llada_dense", "dream", "sdar"])
def test_trainer_runs_unchanged(name: str, made: Made, tmp_path: Path) -> None:
    """Steps with gradient accumulation, evaluation, and a folder that the Auto class loads."""
    model, tokenizer, _ = made(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=3,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    texts = few(model.checkpoint.vocabulary)
    collator = DiffusionCollator(model, tokenizer, end_id=5)
    trainer = Trainer(
        model, arguments, train_dataset=texts, eval_dataset=texts, data_collator=collator, processing_class=tokenizer
    )
    result = trainer.train()
    assert result.global_step == 3
    assert 0 < trainer.evaluate()["eval_loss"] < 100
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    trainer.save_model(str(tmp_path / "saved"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.tensor([texts[0]["input_ids"]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model.eval()(ids).logits)
    stops = load_model(str(tmp_path / "saved"), device="cpu").denoiser.spec.stop_ids
    assert stops == {tokenizer.eos_token_id, *model.spec.stop_ids}


def test_training_goes_on_from_a_checkpoint(made: Made, tmp_path: Path) -> None:
    """To the bit as if it had never been interrupted, in a family whose folders have names of their own."""
    folder = made("llada_dense")[2]
    texts = few(64) * 6

    def train(out: Path, goes_on: Path | None) -> tuple[list[float], dict[str, torch.Tensor]]:
        model = DiffusionModelForCausalLM.from_pretrained(folder)
        arguments = TrainingArguments(
            output_dir=str(out),
            max_steps=4,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_steps=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        collator = DiffusionCollator(model, AutoTokenizer.from_pretrained(folder), end_id=5)
        trainer = Trainer(model, arguments, train_dataset=texts, data_collator=collator)
        trainer.train(resume_from_checkpoint=None if goes_on is None else str(goes_on))
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], model.state_dict()

    losses, whole = train(tmp_path / "whole", None)
    again, resumed = train(tmp_path / "resumed", tmp_path / "whole" / "checkpoint-2")
    assert len(losses) == 4
    assert again == losses
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("name", ["llada_dense", "sdar_moe", "llada2_0"])
def test_saved_weights_go_back_into_a_model(name: str, made: Made, tmp_path: Path) -> None:
    """By their original names, experts one by one; anything else is refused."""
    folder = made(name)[2]
    options = NEEDED.get(name, {})
    model: Any = DiffusionModelForCausalLM.from_pretrained(folder, **options)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    model.load_state_dict(stored)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    first = next(iter(stored))
    with pytest.raises(CheckpointError, match="missing from the weights"):
        model.load_state_dict({first: stored[first]})
    with pytest.raises(CheckpointError, match="is not the model's"):
        model.load_state_dict({**stored, first: stored[first][:1]}, strict=False)


@pytest.mark.parametrize("name", ["llada_dense", "dream", "sdar", "fastdllm_v2"])
def test_what_is_learnt_is_said(name: str, made: Made) -> None:
    """Trained on one text the loss falls, and the family's sampler repeats the text."""
    model, _, _ = made(name)
    text = torch.randperm(50, generator=torch.Generator().manual_seed(2))[None, :8] + 6
    labels = text.clone()
    labels[:, :4] = -100
    steps = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(3)
    model.train()
    losses = []
    for _ in range(120):
        loss = model(text.repeat(8, 1), labels=labels.repeat(8, 1), generator=generator).loss
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])
    model.eval()
    answer = model.generate(text[:, :4], max_new_tokens=4, do_sample=False)
    assert answer[0, 4:8].tolist() == text[0, 4:].tolist()


@pytest.mark.parametrize("name", ["llada_dense", "sdar"])
def test_checkpointing_changes_no_gradient(name: str, made: Made) -> None:
    """Layers are computed again in the backward pass, to the same gradients."""
    model, _, _ = made(name)
    model.train()
    ids = torch.arange(6, 22)[None]
    found = []
    for again in (False, True):
        if again:
            # The newer name, where this transformers has it.
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model.zero_grad()
        model(ids, labels=ids, generator=torch.Generator().manual_seed(1)).loss.backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_chats_are_padded_by_ends_of_text(made: Made) -> None:
    """Only the last answer and the ends of text are learnt; what is learnt decodes to the answer."""
    model, tokenizer, _ = made("llada_dense")
    collator = DiffusionCollator(model, tokenizer, end_id=tokenizer.eos_token_id)
    batch = collator([{"messages": CHAT}, {"messages": LONGER}])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].all()
    for row, (chat, own) in enumerate(((CHAT, CHAT[-1]), (LONGER, LONGER[-1]))):
        learnt = batch["labels"][row] != -100
        assert torch.equal(batch["labels"][row][learnt], batch["input_ids"][row][learnt])
        assert tokenizer.decode(batch["labels"][row][learnt], skip_special_tokens=True).strip() == own["content"]
        before = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, return_dict=False)
        assert batch["input_ids"][row][~learnt].tolist() == before
    assert batch["input_ids"][0, -1] == batch["labels"][0, -1] == collator.end_id


def test_texts_are_padded_out_of_sight(made: Made) -> None:
    """Without learnt padding each text ends once; blocks are filled up, and long texts are cut off."""
    model, tokenizer, _ = made("sdar")
    collator = DiffusionCollator(model, tokenizer, learn_padding=False, max_length=14)
    batch = collator([{"text": "One two"}, {"text": "One two three four five six seven eight nine ten"}])
    block = model.spec.block_length
    assert batch["input_ids"].shape == (2, -(-14 // block) * block)
    assert batch["attention_mask"].sum(1).tolist()[1] == 14
    assert torch.equal(batch["labels"] != -100, batch["attention_mask"].bool())
    end = int(batch["attention_mask"][0].sum())
    assert batch["labels"][0, end - 1] == collator.end_id
    again = collator([collator.encode({"text": "One two"}), {"input_ids": batch["input_ids"][1].tolist()}])
    assert torch.equal(again["input_ids"], batch["input_ids"])


def test_examples_that_teach_nothing(made: Made) -> None:
    """Each is refused by what is wrong with it."""
    model, tokenizer, _ = made("llada_dense")
    collator = DiffusionCollator(model, tokenizer, max_length=4)
    with pytest.raises(RequestError, match=r"'question'; give 'messages'.*remove_unused_columns=False"):
        collator([{"question": "?"}])
    with pytest.raises(RequestError, match="role 'user'"):
        collator([{"messages": CHAT[:1]}])
    with pytest.raises(RequestError, match="max_length=4 cuts the answer off"):
        collator([{"messages": CHAT}])
    with pytest.raises(OptionError, match="max_length=0"):
        DiffusionCollator(model, tokenizer, max_length=0)
    tokenizer.eos_token = None
    model.spec = replace(model.spec, eos_id=None)
    with pytest.raises(OptionError, match="end_id="):
        DiffusionCollator(model, tokenizer)


def test_tri_mode_learns_as_its_base(checkpoint: Path) -> None:
    """With labels it gives the loss of the next token, as every causal model of transformers."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.arange(10, 22)[None]
    found = model(ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(found.logits[0, :-1], ids[0, 1:])
    torch.testing.assert_close(found.loss, expected)


def test_chats_are_learnt_as_every_host_asks(made: Made) -> None:
    """With a template that LLaDA was shipped with, as with none, chats are the family's; another is the user's own."""
    model, tokenizer, folder = made("llada_dense")
    own = DiffusionCollator(model, tokenizer).encode({"messages": CHAT})["input_ids"]
    assert tokenizer.decode(own).startswith("<s>user\nHello there.")
    found = []
    for template in (None, "{% for m in messages %}<|start_header_id|>{{ m.content }}{% endfor %}<|start_header_id|>"):
        tokenizer.chat_template = template
        found.append(DiffusionCollator(model, tokenizer).encode({"messages": CHAT})["input_ids"])
        assert tokenizer.chat_template == template
    assert found[0] == found[1]
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    asked = load_model(str(folder), device="cpu").encode_chat(CHAT[:1])
    assert found[0][: len(asked)] == asked
    assert tokenizer.decode(found[0][len(asked) :]).startswith("Good day.<|eot_id|>")


def test_texts_end_where_the_model_stops(made: Made) -> None:
    """At the tokenizer's end of text, unless answers of the model do not end there."""
    model, tokenizer, _ = made("llada_dense")
    assert model.spec.stop_ids == {231}
    assert DiffusionCollator(model, tokenizer).end_id == 231
    assert DiffusionCollator(model, tokenizer, end_id=7).end_id == 7
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(231)
    assert DiffusionCollator(model, tokenizer).end_id == 231
