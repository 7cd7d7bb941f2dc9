"""The training loop: time-limited, resumable, logged."""

import json
import random
import time
from collections import Counter
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.training.batches import TrainingBatch
from dllm_plugins.training.batches import TrainingText
from dllm_plugins.training.batches import block_rows
from dllm_plugins.training.batches import collate
from dllm_plugins.training.batches import group_rows
from dllm_plugins.training.batches import read_answers
from dllm_plugins.training.batches import suffix_rows
from dllm_plugins.training.checkpoint import TrainingProgress
from dllm_plugins.training.checkpoint import export
from dllm_plugins.training.checkpoint import load_weights
from dllm_plugins.training.checkpoint import resume_run
from dllm_plugins.training.checkpoint import save_run
from dllm_plugins.training.evaluate import simulate
from dllm_plugins.training.loss import clean_keys
from dllm_plugins.training.loss import denoising_loss
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number of the recipe. `minutes` is the whole run, resumed parts included."""

    minutes: float
    seed: int = 0
    rank: int = 32
    chain: int = 640
    answers: int = 5
    learning_rate: float = 8e-4
    warm_up: int = 20
    floor: float = 0.05
    plain: float = 0.5
    block_weight: float = 0.7
    suffix_share: float = 0.15
    frequent: int = 4096
    noise_tokens: int = 1024
    shortlist: int = 8192
    evaluate_every: int = 200
    save_every: float = 240.0


def _sorted_chunks(answers: list[TrainingText], size: int, rng: random.Random) -> list[list[TrainingText]]:
    """Batches of similar length (little padding) in random order."""
    by_length = sorted(answers, key=lambda answer: len(answer.tokens) + rng.random() * 12)
    chunks = [by_length[i : i + size] for i in range(0, len(by_length) - size + 1, size)]
    rng.shuffle(chunks)
    return chunks


def _frequent_tokens(answers: list[TrainingText], count: int) -> Tensor:
    counts = Counter(token for answer in answers for token in answer.tokens[answer.prompt :])
    return torch.tensor(sorted(token for token, _ in counts.most_common(count)))


def _vocabulary(batch: TrainingBatch, frequent: Tensor, extra: int, size: int, rng: random.Random) -> Tensor:
    """A subset for the loss: frequent tokens, the batch's own, and a few at random."""
    generator = torch.Generator().manual_seed(rng.getrandbits(48))
    noise = torch.randint(size, (extra,), generator=generator)
    subset: Tensor = torch.unique(torch.cat([frequent, noise, batch.tokens.flatten()]))
    return subset


class Run:
    """One training run in `folder`: checkpoint `run.pt`, weights `denoiser.safetensors`, `log.jsonl`."""

    def __init__(
        self, base_folder: Path, data: list[Path], held_out: list[Path], folder: Path, recipe: Recipe, compiled: bool
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder = recipe, folder
        torch.manual_seed(recipe.seed)
        base = load_llama(base_folder, torch.bfloat16)
        self.trunk = Trunk(base, 600, compiled)
        self.answers = read_answers(data)
        self.held_out = read_answers(held_out)
        self.frequent = _frequent_tokens(self.answers, recipe.frequent)
        start = base.embedding[:2000].float().mean(0)
        self.denoiser = LowRankDenoiser(base.shape, recipe.rank, recipe.chain, start)
        self.optimiser = torch.optim.AdamW(
            self.denoiser.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.progress = TrainingProgress()
        self.rng = random.Random(recipe.seed)

    def resume(self, weights: Path | None) -> None:
        """Go on from this folder's checkpoint, else start from exported `weights` if given."""
        checkpoint = self.folder / "run.pt"
        if checkpoint.exists():
            self.progress = resume_run(checkpoint, self.denoiser, self.optimiser)
            self.rng = random.Random(f"{self.recipe.seed} {self.progress.steps}")
        elif weights is not None:
            load_weights(self.denoiser, weights)

    def _rate(self) -> float:
        left = 1 - self.progress.seconds / (60 * self.recipe.minutes)
        warm = min(1.0, (self.progress.steps + 1) / self.recipe.warm_up)
        return self.recipe.learning_rate * warm * max(self.recipe.floor, left)

    def _backward(
        self, batch: TrainingBatch, past: list[tuple[Tensor, Tensor]], plain: float, weight: float
    ) -> dict[str, float]:
        size = self.trunk.base.shape.vocabulary
        vocabulary = _vocabulary(batch, self.frequent, self.recipe.noise_tokens, size, self.rng)
        loss, parts = denoising_loss(self.trunk, self.denoiser, batch, past, vocabulary, self.rng, plain)
        (loss * weight).backward()
        self.progress.rows += int(batch.open.sum())
        return parts

    def step(self, answers: list[TrainingText]) -> dict[str, float]:
        """One optimiser step: speculative groups and diffusion blocks of the same answers."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        groups = collate(answers, [group_rows(answer, self.rng) for answer in answers])
        past = clean_keys(self.trunk, groups)
        losses = {"group": self._backward(groups, past, 0.0, 1.0)["chain"]}
        infill = self.rng.random() < self.recipe.suffix_share
        rows = suffix_rows if infill else block_rows
        blocks = collate(answers, [rows(answer, self.rng) for answer in answers])
        parts = self._backward(blocks, past, self.recipe.plain, self.recipe.block_weight)
        losses |= {f"{'infill' if infill else 'block'}_{name}": value for name, value in parts.items()}
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.progress.steps += 1
        return losses

    def _log(self, **values: object) -> None:
        line = json.dumps({"step": self.progress.steps, "minutes": round(self.progress.seconds / 60, 2), **values})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def evaluate(self) -> None:
        """Log accuracy and tokens per pass on held-out answers."""
        score = simulate(self.trunk, self.denoiser, self.held_out)
        accuracy = [round(value, 3) for value in score.accuracy]
        self._log(rows=self.progress.rows, accuracy=accuracy, tokens_per_pass=round(score.tokens_per_pass, 3))

    def save(self) -> None:
        """Write the checkpoint and the weights in their shipped form."""
        save_run(self.folder / "run.pt", self.denoiser, self.optimiser, self.progress)
        recipe = {
            "rank": str(self.recipe.rank),
            "steps": str(self.progress.steps),
            "minutes": f"{self.progress.seconds / 60:.1f}",
            "open_rows": str(self.progress.rows),
        }
        shortlist = _frequent_tokens(self.answers, self.recipe.shortlist)
        export(self.denoiser, self.folder / "denoiser.safetensors", shortlist, recipe)

    def train(self) -> None:
        """Train until `minutes` are used up; evaluation and saving count too."""
        sums: defaultdict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        saved = self.progress.seconds
        while self.progress.seconds < 60 * self.recipe.minutes:
            for chunk in _sorted_chunks(self.answers, self.recipe.answers, self.rng):
                began = time.monotonic()
                for name, value in self.step(chunk).items():
                    sums[name] += value
                    counts[name] += 1
                if self.progress.steps % 20 == 0:
                    self._log(rows=self.progress.rows, **{name: round(sums[name] / counts[name], 3) for name in sums})
                    sums.clear()
                    counts.clear()
                if self.progress.steps % self.recipe.evaluate_every == 0:
                    self.evaluate()
                self.progress.seconds += time.monotonic() - began
                if self.progress.seconds - saved > self.recipe.save_every:
                    self.save()
                    saved = self.progress.seconds
                if self.progress.seconds >= 60 * self.recipe.minutes:
                    break
        self.save()
        self.evaluate()
