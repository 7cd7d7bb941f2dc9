"""The recipe of the small block-diffusion model: its task and checker, rows, loss, resuming, learning, files."""

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.training.blocks.__main__ import main
from dllm_plugins.training.blocks.batches import layout
from dllm_plugins.training.blocks.batches import noised
from dllm_plugins.training.blocks.evaluate import held_out_puzzles
from dllm_plugins.training.blocks.evaluate import score
from dllm_plugins.training.blocks.evaluate import shipped_model
from dllm_plugins.training.blocks.export import tokenizer
from dllm_plugins.training.blocks.puzzles import BLANK_ID
from dllm_plugins.training.blocks.puzzles import FEWEST_CLUES
from dllm_plugins.training.blocks.puzzles import MASK_ID
from dllm_plugins.training.blocks.puzzles import MOST_CLUES
from dllm_plugins.training.blocks.puzzles import VOCABULARY
from dllm_plugins.training.blocks.puzzles import boards
from dllm_plugins.training.blocks.puzzles import solves
from dllm_plugins.training.blocks.puzzles import split
from dllm_plugins.training.blocks.puzzles import text
from dllm_plugins.training.blocks.recipe import BlockRecipe
from dllm_plugins.training.blocks.train import BlockRun
from dllm_plugins.training.blocks.train import learning_rate
from dllm_plugins.training.blocks.train import stream

TINY = BlockRecipe(steps=80, batch=32, width=32, inner=64, layers=2, heads=2, learning_rate=5e-3, warm_up=10)
BOARD = "1234341221434321"


@pytest.mark.parametrize(
    ("clues", "answer", "right"),
    [
        ("1234............", BOARD, True),
        ("................", BOARD, True),
        ("................", "2143432112343412", True),
        ("1234............", "1243431221343421", False),  # a clue is gone
        ("................", "1234341221434312", False),  # the last two columns
        ("................", "1234123412341234", False),  # every column
        ("................", "1234234134124123", False),  # rows and columns are right, boxes are not
        ("................", "1134341221434321", False),  # the first row
        ("................", BOARD[:-1], False),
        ("................", BOARD + "1", False),
        ("................", BOARD[:-1] + ".", False),
        ("................", "", False),
    ],
)
def test_checker(clues: str, answer: str, right: bool) -> None:
    """Any full board that keeps the clues and the three kinds of groups is right, nothing else."""
    assert solves(clues, answer) is right


def test_boards() -> None:
    """There are 288 of them; those held out are never drawn for training."""
    assert len(set(boards())) == 288
    assert all(solves("." * 16, board) for board in boards())
    training, held_out = split(3)
    ours, theirs = ({text(board) for board in part.cells} for part in (training, held_out))
    assert not ours & theirs
    assert len(ours) == 256
    prompts, answers = training.draw(200, stream(0, 0))
    clues = (prompts != BLANK_ID).sum(1)
    assert clues.min() == FEWEST_CLUES
    assert clues.max() == MOST_CLUES
    for prompt, answer in zip(prompts, answers, strict=True):
        assert solves(text(prompt), text(answer))
        assert text(answer) in ours


def test_layout() -> None:
    """Noisy rows see earlier clean blocks and their own block, clean rows no later block, nobody noise of others."""
    positions, sees = layout(prompt=2, answer=4, length=2)
    assert positions.tolist() == [2, 3, 4, 5, 0, 1, 2, 3]
    assert sees.int().tolist() == [
        [1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1, 1],
    ]


def test_noise() -> None:
    """Every block has 1 to `length` masks that weigh 1 together; each number comes equally often."""
    prompts, answers = split(0)[0].draw(4000, stream(0, 0))
    batch = noised(prompts, answers, 8, MASK_ID, stream(0, 1))
    masked = batch.tokens[:, :16] == MASK_ID
    assert torch.equal(masked, batch.weights > 0)
    assert torch.allclose(batch.weights.view(-1, 8).sum(1), torch.ones(8000))
    counts = torch.bincount(masked.view(-1, 8).sum(1), minlength=9)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 5 * math.sqrt(1000)
    assert torch.equal(torch.where(masked, answers, batch.tokens[:, :16]), answers)
    assert torch.equal(batch.tokens[:, 16:], torch.cat([prompts, answers[:, :8]], dim=1))


def test_loss_of_a_model_that_knows_nothing(tmp_path: Path) -> None:
    """A uniform guess costs log V for each of a block's positions."""
    run = BlockRun(tmp_path, TINY)
    torch.nn.init.zeros_(run.model.lm_head.weight)
    assert run.held_out_loss(16) == pytest.approx(8 * math.log(len(VOCABULARY)), rel=1e-5)


def test_one_pass_over_all_blocks_equals_a_pass_for_each(tmp_path: Path) -> None:
    """Noisy rows say what a plain block-causal pass over their true past and their block says."""
    run = BlockRun(tmp_path, TINY)
    batch = run.batch(run.training, 0, 3)
    together = run.model(
        batch.tokens, attention_mask=run.mask, position_ids=run.positions.expand(3, -1), use_cache=False
    ).logits
    for begin in (16, 24):
        noisy = batch.tokens[:, begin - 16 : begin - 8]
        tokens = torch.cat([batch.tokens[:, 16 : begin + 16], noisy], dim=1)
        block = torch.arange(tokens.shape[1]) // 8
        mask = torch.zeros(len(block), len(block)).masked_fill(block[None] > block[:, None], -1e30)[None, None]
        alone = run.model(tokens, attention_mask=mask, use_cache=False).logits[:, -8:]
        assert torch.allclose(alone, together[:, begin - 16 : begin - 8], atol=1e-5)


def test_learning_rate() -> None:
    """It warms up, then falls to nothing."""
    rates = [learning_rate(BlockRecipe(steps=1000, warm_up=100), step) for step in (0, 99, 500, 999)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[1] > 0.97 * 2e-3
    assert rates[2] == pytest.approx(1e-3)
    assert rates[3] < 1e-7


@pytest.mark.slow
def test_it_learns_and_resumes_to_the_bit(tmp_path: Path) -> None:
    """A run that was interrupted ends where one that was not ends, and both know more than at the beginning."""
    whole = BlockRun(tmp_path / "whole", TINY)
    before = whole.held_out_loss()
    whole.train()
    assert whole.held_out_loss() < 0.75 * before
    BlockRun(tmp_path / "parts", TINY).train(until=30)
    parts = BlockRun(tmp_path / "parts", TINY)
    parts.resume()
    assert parts.steps == 30
    parts.train()
    theirs = parts.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in whole.model.state_dict().items())
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 50


def test_another_recipe_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    """Sizes and rates are the run's."""
    BlockRun(tmp_path, TINY).train(until=1)
    other = BlockRun(tmp_path, BlockRecipe(steps=9, width=32, layers=2, heads=2, inner=64))
    with pytest.raises(CheckpointError, match="use another folder"):
        other.resume()


def test_the_folder_is_a_checkpoint_of_family_sdar(tmp_path: Path) -> None:
    """It loads, fills its context with the answer, and never shows a mask."""
    BlockRun(tmp_path, TINY).train(until=1)
    model = load_model(str(tmp_path / "model"), dtype="float32", device="cpu")
    spec = model.denoiser.spec
    assert (spec.block_length, spec.mask_id, spec.modes[0]) == (8, MASK_ID, "diffusion")
    assert spec.samplers["diffusion"] == "sdar"
    puzzle = "12.. .... ..43 ...."
    prompt = model.encode_chat([{"role": "user", "content": puzzle}])
    assert prompt == model.tokenizer(puzzle)["input_ids"] == [VOCABULARY.index(c) for c in puzzle.replace(" ", "")]
    found = model.engine().generate([Request(prompt)])[0]
    assert len(found.tokens) == 16
    assert "MASK" not in found.text
    assert found.text == text(torch.tensor(found.tokens))


def test_tokenizer() -> None:
    """One token a character, both ways."""
    ids = tokenizer()("12..\n.x.3").input_ids
    assert [VOCABULARY[item] for item in ids] == ["1", "2", ".", ".", ".", "[UNK]", ".", "3"]
    assert tokenizer().decode([0, 1, 2, 3]) == "1234"


def test_score_counts_what_the_checker_accepts(tmp_path: Path) -> None:
    """An untrained model solves nothing; one cell a pass is 16 passes an answer."""
    BlockRun(tmp_path, TINY).train(until=1)
    model = load_model(str(tmp_path / "model"), dtype="float32", device="cpu")
    config = SamplingConfig(steps=8, preset_options={"remasking": "low_confidence_static"})
    found = score(model, held_out_puzzles(8), config)
    assert found.solved == 0
    assert found.passes == 16


def test_commands(tmp_path: Path) -> None:
    """Train, go on, evaluate."""
    folder = tmp_path / "run"
    for _ in range(2):
        done = CliRunner().invoke(main, ["train", "--folder", str(folder), "--steps", "2"], catch_exceptions=False)
        assert done.exit_code == 0
    command = ["evaluate", "--model", str(folder / "model"), "--puzzles", "4"]
    shown = CliRunner().invoke(main, command, catch_exceptions=False).output
    assert "| 1 | 0.0% | 16.0 |" in shown
    assert "| 8 | 0.0% | 2.0 |" in shown


@pytest.mark.slow
def test_the_shipped_model_solves_boards_it_never_saw() -> None:
    """One cell a pass solves more than 9 in 10; a whole block a pass, which every cell alone agrees to, does not."""
    assert sum(path.stat().st_size for path in shipped_model().iterdir()) < 4_000_000
    model = load_model(str(shipped_model()), dtype="float32", device="cpu")
    puzzles = held_out_puzzles(200)
    solved = [
        score(model, puzzles, SamplingConfig(steps=steps, preset_options={"remasking": "low_confidence_static"})).solved
        for steps in (8, 1)
    ]
    assert solved[0] > 0.9
    assert solved[1] < 0.6
