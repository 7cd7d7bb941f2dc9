"""DiffusionGemma's loss against loops over rows, each forwarded as it is decoded, and what it teaches."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from dllm_plugins.errors import OptionError
from dllm_transformers import DiffusionCollator
from dllm_transformers import DiffusionModelForCausalLM

from .checkpoints import change
from .checkpoints import copy_of

CANVAS, LENGTH, WINDOW = 4, 15, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Any:
    """The tiny checkpoint in doubles, with windows that end within the texts."""
    folder = copy_of("diffusion_gemma", tmp_path_factory.mktemp("hub") / "gemma", tiny_folder)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder, text_config={**text, "sliding_window": WINDOW})
    found: Any = DiffusionModelForCausalLM.from_pretrained(folder).double()
    found.native.set_experts_implementation("eager")
    return found


def batch(padded: str = "right") -> dict[str, Tensor]:
    """A row with a prompt of three tokens, and a short one with a prompt of two that is padded."""
    ids = torch.randint(6, 60, (2, LENGTH), generator=torch.Generator().manual_seed(5))
    mask, labels = torch.ones_like(ids), ids.clone()
    begin = 0 if padded == "right" else 5
    mask[1, slice(10, None) if padded == "right" else slice(5)] = 0
    labels[0, :3] = -100
    labels[1, begin : begin + 2] = -100
    labels[1, mask[1] == 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def head(model: Any, hidden: Tensor) -> Tensor:
    cap = model.native.final_logit_softcapping
    capped: Tensor = cap * torch.tanh(model.native.lm_head(hidden) / cap)
    return capped


def odds(model: Any, known: list[int], noisy: list[int]) -> list[Tensor]:
    """Of a noisy canvas behind a clean text, by transformers' own pass over both; without and with what was said."""
    given = {"input_ids": torch.tensor([known]), "decoder_input_ids": torch.tensor([noisy])}
    first = head(model, model.native.model(**given).last_hidden_state)
    second = head(model, model.native.model(**given, self_conditioning_logits=first).last_hidden_state)
    return [torch.softmax(logits[0], -1) for logits in (first, second)]


def reference(model: Any, given: dict[str, Tensor], seed: int, items: int | None = None) -> float:
    """Token by token, each row without its padding; numbers are drawn in the documented order."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, dtype=torch.float64)

    time, luck, others, which, coins = draw(2, 1), draw(2, LENGTH), draw(2, LENGTH), draw(2), draw(2)
    total, count, before, pairs = 0.0, 0, 0.0, 0
    for row in range(2):
        real = [index for index in range(LENGTH) if given["attention_mask"][row, index]]
        clean = [int(given["input_ids"][row, index]) for index in real]
        start = [int(given["labels"][row, index]) != -100 for index in real].index(True)
        noisy = []
        for place, index in enumerate(real):
            changed = place >= start and luck[row, index] < 0.001 + 0.999 * time[row]
            noisy.append(int(others[row, index] * model.checkpoint.vocabulary) if changed else clean[place])
        begin = start + CANVAS * int(which[row] * math.ceil((len(clean) - start) / CANVAS))
        own = slice(begin, begin + CANVAS)
        said = odds(model, clean[:begin], noisy[own])[int(coins[row] < 0.5)]
        for token, rate in zip(clean[own], said, strict=True):
            total, count = total - math.log(float(rate[token])), count + 1
        hidden = model.native.model.encoder(input_ids=torch.tensor([clean])).last_hidden_state
        for token, rate in zip(clean[1:], torch.softmax(head(model, hidden)[0], -1), strict=False):
            before, pairs = before - math.log(float(rate[token])), pairs + 1
    labels = int((given["labels"] != -100).sum())
    return (total / count + before / pairs) * (1 if items is None else labels / items)


def loss(model: Any, given: dict[str, Tensor], seed: int, **more: Any) -> Any:
    return model(**given, generator=torch.Generator().manual_seed(seed), block_length=CANVAS, **more)


@pytest.mark.parametrize("padded", ["right", "left"])
def test_loss_equals_plain_loops(padded: str, model: Any) -> None:
    """Within 1e-5 in doubles, whatever is padded and drawn; and as a share of a larger step."""
    given = batch(padded)
    with torch.no_grad():
        for seed in range(6):
            found = loss(model, given, seed)
            assert float(found.loss) == pytest.approx(reference(model, given, seed), rel=1e-5, abs=1e-5)
            assert found.logits.shape == (2, CANVAS, model.checkpoint.vocabulary)
        part = loss(model, given, 3, num_items_in_batch=torch.tensor(50)).loss
        assert float(part) == pytest.approx(reference(model, given, 3, 50), rel=1e-5, abs=1e-5)


def test_what_cannot_be_learnt_is_refused(model: Any) -> None:
    """Answers with something else between them; nothing at all is learnt of nothing."""
    given = batch()
    parted = given["labels"].clone()
    parted[0, 8] = -100
    with pytest.raises(OptionError, match="begin, end and begin again"):
        loss(model, given | {"labels": parted}, 1)
    with pytest.raises(OptionError, match="position_ids has no effect"):
        loss(model, given | {"position_ids": torch.arange(LENGTH)[None]}, 1)
    model.objective = "llada"
    with pytest.raises(OptionError, match=r"noise is uniform; set model.objective to another one's, 'diffusion_gemma'"):
        loss(model, given, 1)
    model.objective = None


def test_everything_gets_a_gradient(model: Any) -> None:
    """All weights but those for pictures; encoder and decoder share theirs, what conditions has its own."""
    model.zero_grad()
    loss(model, batch(), 0).loss.backward()
    learnt = {name for name, weight in model.named_parameters() if weight.grad is not None}
    unused = {name for name, _ in model.named_parameters()} - learnt
    assert all("vision" in name for name in unused)
    assert any("self_conditioning" in name for name in learnt)
    model.zero_grad()


def test_answers_fill_canvases_of_their_own(model: Any, tiny_folder: Path) -> None:
    """From where each begins; what stands behind the last canvas is hidden, and not learnt."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    collator = DiffusionCollator(model, tokenizer)
    chats = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in (("Who?", "A model of yours, and a small one."), ("And you there?", "Me."))
    ]
    rows = [collator.encode({"messages": chat}) for chat in chats]
    found = collator([{"messages": chat} for chat in chats])
    canvas = model.spec.block_length
    for row, seen, labels, ids in zip(rows, found["attention_mask"], found["labels"], found["input_ids"], strict=True):
        begin = row["labels"].count(-100)
        learnt = (labels != -100).nonzero()[:, 0].tolist()
        assert learnt == [*range(begin, int(seen.sum()))]
        assert 0 < len(row["input_ids"]) - begin <= len(learnt) < len(row["input_ids"]) - begin + canvas
        assert len(learnt) % canvas == 0
        assert set(ids[len(row["input_ids"]) :].tolist()) == {collator.end_id}
        assert seen.tolist() == sorted(seen.tolist(), reverse=True)
    plain = DiffusionCollator(model, tokenizer, learn_padding=False)([{"messages": chats[1]}])
    assert int((plain["labels"] != -100).sum()) == len(rows[1]["input_ids"]) - rows[1]["labels"].count(-100)
    assert torch.isfinite(model(**found, generator=torch.Generator().manual_seed(1)).loss)
