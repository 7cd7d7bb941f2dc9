"""The benchmark of training steps, on a tiny checkpoint and without the peer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training

from ..gguf.checkpoints import make


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_step_moves_the_weights_and_tells_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the same noise falls; with LoRA, too."""
    monkeypatch.setattr(training, "MASK", 232)
    folder = make(tmp_path / "tiny", "a2d-qwen3")
    given = training.batch(2, 64, 8)
    for preset, lora in (("mdlm", 0), ("bd3lm", 0), ("mdlm", 4)):
        step = training.our_step(folder, preset, given, lora)
        losses = [step(3) for _ in range(4)]
        assert losses[-1] < losses[0]


def test_only_the_loss_is_the_same_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without logits beside it; and with them where nobody asked for less."""
    monkeypatch.setattr(training, "MASK", 232)
    model: Any = training.ours(make(tmp_path / "tiny", "a2d-qwen3"), "mdlm")
    tokens, labels = training.batch(2, 32, 8)

    def asked() -> Any:
        return model(input_ids=tokens, labels=labels, generator=torch.Generator().manual_seed(1))

    least = asked()
    model.loss_only = False
    whole = asked()
    assert least.logits is None
    assert whole.logits.shape == (2, 32, 233)
    assert torch.equal(least.loss, whole.loss)


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    """The ratio is of medians, and losses are compared where they are to be equal."""
    seen = list[tuple[str, int]]()

    def side(name: str, loss: float) -> training.Step:
        def step(seed: int) -> float:
            seen.append((name, seed))
            return loss

        return step

    row = training.race("row", side("a", 1.0), side("b", 1.5), 2, 10, same=True)
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert row.apart == 0.5
    assert "| row |" in training.table([row], {"ours/mdlm": 2**21})


def test_prompts_are_no_labels() -> None:
    """They are given."""
    found: tuple[Tensor, Tensor] = training.batch(2, 6, 2)
    assert (found[1][:, :2] == -100).all()
    assert torch.equal(found[0][:, 2:], found[1][:, 2:])
