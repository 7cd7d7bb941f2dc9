"""The recipe for any base: from its folder to a tri-mode model that says what the base says."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.training.__main__ import main
from dllm_plugins.training.base import open_base
from dllm_plugins.training.batches import TrainingText
from dllm_plugins.training.batches import collate
from dllm_plugins.training.batches import group_rows
from dllm_plugins.training.loss import Aim
from dllm_plugins.training.loss import clean_pass
from dllm_plugins.training.loss import denoising_loss
from dllm_plugins.training.loss import divergence
from dllm_plugins.training.loss import open_hidden
from dllm_plugins.training.loss import refine
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import TrainingRun
from dllm_plugins.training.workers import Workers

from ..default_model.bases import BASES
from ..default_model.bases import make_base

TEXT = TrainingText([5 + 7 * place % 200 for place in range(40)], 6)


def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)


def test_what_open_rows_are_trained_towards(tmp_path: Path) -> None:
    """The cross-entropy of the text and the divergence from the base's own odds, as plain sums give them."""
    folder = make_base(tmp_path / "base", "qwen3")
    weights = open_base(folder, "float32", "cpu").weights.plain()
    trunk, rng = Trunk(weights, 64), random.Random(3)
    torch.manual_seed(0)
    denoiser = LowRankDenoiser(weights.shape, 3, 8, weights.embedding.mean(0))
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.copy_(torch.randn_like(weight) * 0.1)
    rows = group_rows(TEXT, rng)
    batch = collate([TEXT], [rows])
    clean = clean_pass(trunk, batch)
    odds = theirs(folder)(torch.tensor([list(TEXT.tokens)])).logits[0].detach().log_softmax(-1)
    assert torch.allclose((clean.hidden[0] @ weights.head.T).log_softmax(-1), odds, atol=1e-3)

    aim = Aim(torch.arange(weights.shape.vocabulary), 0.0, 0.3)
    found, parts = denoising_loss(trunk, denoiser, batch, clean, aim, random.Random(5))
    hidden = open_hidden(trunk, denoiser, batch, clean.past)
    said = refine(trunk, denoiser, batch, hidden, random.Random(5), drop=0.1).detach() @ weights.head.T
    decay = [0.85**row.offset for row in rows]
    text = apart = 0.0
    for row, student, share in zip(rows, said.log_softmax(-1), decay, strict=True):
        teacher = odds[row.position - 1]
        text -= share / sum(decay) * float(student[TEXT.tokens[row.position]])
        apart += share / sum(decay) * sum(float(p.exp() * (p - q)) for p, q in zip(teacher, student, strict=True))
    assert parts["chain"] == pytest.approx(text, rel=1e-3)
    assert parts["chain_apart"] == pytest.approx(apart, rel=1e-3)
    assert float(found.detach()) == pytest.approx(0.7 * text + 0.3 * apart, rel=1e-3)
    found.backward()
    assert all(weight.grad is not None for weight in denoiser.parameters())


def test_divergence_pulls_towards_the_teacher() -> None:
    """It is nothing where both say the same, and its gradient is the difference of the odds."""
    taught = torch.randn(4, 9)
    assert divergence(taught + 3, taught).abs().max() < 1e-6
    student = torch.randn(4, 9, requires_grad=True)
    divergence(student, taught).sum().backward()
    assert torch.allclose(_given(student.grad), student.softmax(-1) - taught.softmax(-1), atol=1e-6)


def _given(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


@pytest.mark.parametrize("kind", [kind for kind in BASES if kind != "qwen3"])
def test_the_trunk_is_the_base(tmp_path: Path, kind: str) -> None:
    """Biases, heads, stretched positions: what it says of clean text is what transformers says."""
    folder = make_base(tmp_path / "base", kind)
    weights = open_base(folder, "float32", "cpu").weights.plain()
    batch = collate([TEXT], [group_rows(TEXT, random.Random(0))])
    found = clean_pass(Trunk(weights, 64), batch).hidden[0] @ weights.head.T
    assert torch.allclose(found, theirs(folder)(batch.tokens).logits[0], atol=1e-3)


def test_sizes_follow_the_base() -> None:
    """The default base's are those of the shipped file."""
    sizes = {hidden: (made.rank, made.chain) for hidden in (32, 576, 2048) for made in [Recipe(1).sized(hidden)]}
    assert sizes == {32: (4, 32), 576: (32, 640), 2048: (64, 2272)}
    assert Recipe(1, rank=3, chain=5).sized(576) == Recipe(1, rank=3, chain=5)


def run(*given: object) -> str:
    done = CliRunner().invoke(main, [str(item) for item in given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_from_a_folder_to_a_tri_mode_model(tmp_path: Path) -> None:
    """Text, training in two parts, evaluation, decoding; the file is this base's and no other's."""
    base, text, folder = make_base(tmp_path / "mine", "qwen2", eos_token_id=250), tmp_path / "text", tmp_path / "run"
    ours = ("--base", base, "--dtype", "float32")
    run("corpus", *ours, "--folder", text, "--tokens", 100, "--prompts", 6, "--longest", 32, "--sampled", 0)
    train = ("train", *ours, "--text", text, "--folder", folder, "--eager", "--rank", 3, "--answers", 2, "--block", 4)
    run(*train, "--minutes", 0.005)
    steps = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"]
    spent = torch.load(folder / "run.pt", weights_only=True)["progress"]["seconds"]
    run(*train, "--minutes", spent / 60 + 0.005)
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"] > steps > 0
    denoiser = folder / "denoiser.safetensors"
    with safe_open(denoiser, framework="pt") as file:
        about = file.metadata()
    assert (about["rank"], about["block"], about["distil"], json.loads(about["base"])["name"]) == (
        "3",
        "4",
        "0.5",
        "mine",
    )
    given = ("--base", base, "--dtype", "float32", "--denoiser", denoiser, "--tokens", 4, "--prompts", 1)
    assert "| speculative, draft_length 2 |" in run("evaluate", *given)

    model = load_model(base=base, denoiser=denoiser, dtype="float32", device="cpu")
    assert model.denoiser.spec.block_length == 4
    prompt = [5, 6, 7, 8]
    said = theirs(base).generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, pad_token_id=0)[0, 4:]
    for mode in ("ar", "speculative"):
        config = SamplingConfig(mode=mode, max_new_tokens=16)
        answer = model.engine().generate([Request(prompt, config)])[0].tokens
        assert list(answer) == [token for token in said.tolist() if token != 250]

    other = make_base(tmp_path / "other", "qwen2", seed=1, eos_token_id=250)
    with pytest.raises(CheckpointError, match="belongs to the base mine"):
        load_model(base=other, denoiser=denoiser, device="cpu")
    train_other = ["train", "--base", str(other), "--dtype", "float32", "--folder", str(tmp_path / "theirs")]
    with pytest.raises(CheckpointError, match="belongs to the base mine"):
        run(*train_other, "--text", text)
    assert "there is no text" in CliRunner().invoke(main, train_other).output
    files = list(text.glob("answers-*")), [folder / "held-out.jsonl.gz"]
    recipe = Recipe(minutes=1, rank=3, answers=2)
    for place, weights in ((folder, None), (tmp_path / "new", denoiser)):
        begun = TrainingRun(
            open_base(other, "float32", "cpu"), *files, place, recipe, False, Workers(torch.device("cpu"))
        )
        with pytest.raises(CheckpointError, match="belongs to the base mine"):
            begun.resume(weights)
