"""The training loop: time-limited, resumable, logged."""

import json
import random
import time
from collections import Counter
from collections import defaultdict
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dllm_kernels.decoder import DecoderWeights
from dllm_plugins.denoisers.base_mark import KEY
from dllm_plugins.errors import CheckpointError
from dllm_plugins.training.base import FrozenBase
from dllm_plugins.training.batches import BLOCK
from dllm_plugins.training.batches import GROUP
from dllm_plugins.training.batches import TrainingBatch
from dllm_plugins.training.batches import TrainingRow
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
from dllm_plugins.training.loss import Aim
from dllm_plugins.training.loss import Clean
from dllm_plugins.training.loss import clean_pass
from dllm_plugins.training.loss import denoising_loss
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk
from dllm_plugins.training.workers import Workers


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number of the recipe. `minutes` is the whole run, resumed parts included.

    :param rank: of the low-rank pairs, and `chain` the width of the draft head; None for what suits the base's width.
    :param group: open rows of a group, and `block` those of a block.
    :param answers: of a step, in each process.
    :param distil: see :class:`~dllm_plugins.training.loss.Aim`.
    """

    minutes: float
    seed: int = 0
    rank: int | None = None
    chain: int | None = None
    group: int = GROUP
    block: int = BLOCK
    answers: int = 5
    learning_rate: float = 8e-4
    warm_up: int = 20
    floor: float = 0.05
    plain: float = 0.5
    distil: float = 0.0
    block_weight: float = 0.7
    suffix_share: float = 0.15
    frequent: int = 4096
    noise_tokens: int = 1024
    shortlist: int = 8192
    longest: int = 460
    evaluate_every: int = 200
    save_every: float = 240.0

    def sized(self, hidden: int) -> "Recipe":
        """With a rank and a width of the draft head: 32 and 640 at the default base's width, 576."""
        rank = min(64, max(4, round(hidden / 18 / 4) * 4)) if self.rank is None else self.rank
        chain = max(16, round(hidden / 0.9 / 16) * 16) if self.chain is None else self.chain
        return replace(self, rank=rank, chain=chain)


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
    subset: Tensor = torch.unique(torch.cat([frequent, noise, batch.tokens.flatten().cpu()]))
    return subset.to(batch.tokens.device)


class TrainingRun:
    """One training run in `folder`: checkpoint `run.pt`, weights `denoiser.safetensors`, `log.jsonl`.

    :param data: files of answers, and `held_out` of greedy ones to prompts that nobody is trained on.
    """

    def __init__(
        self,
        base: FrozenBase,
        data: list[Path],
        held_out: list[Path],
        folder: Path,
        recipe: Recipe,
        compiled: bool,
        together: Workers,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.base, self.folder, self.together = base, folder, together
        self.recipe = recipe.sized(base.shape.hidden)
        torch.manual_seed(recipe.seed)
        weights = base.weights.plain()
        self.trunk = Trunk(weights, recipe.longest + 16, compiled)
        self.answers = read_answers(data, recipe.longest)
        self.held_out = read_answers(held_out, recipe.longest)
        self._check_text(data)
        self.frequent = _frequent_tokens(self.answers, recipe.frequent)
        self.denoiser = self._denoiser(weights).to(together.device)
        self.optimiser = torch.optim.AdamW(
            self.denoiser.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.progress = TrainingProgress()
        self._seed()

    def _denoiser(self, weights: DecoderWeights) -> LowRankDenoiser:
        assert self.recipe.rank is not None
        assert self.recipe.chain is not None
        start = weights.embedding[:2000].float().mean(0)
        return LowRankDenoiser(weights.shape, self.recipe.rank, self.recipe.chain, start)

    def _check_text(self, data: list[Path]) -> None:
        """Refuse too little text for a step, and ids that the base does not have.

        :raises CheckpointError: with what to do.
        """
        least = self.recipe.answers * self.together.count
        if len(self.answers) < least:
            raise CheckpointError(
                f"{len(self.answers)} answers of more than 24 tokens in {len(data)} files are too few for a step of "
                f"{least}; make more: python -m dllm_plugins.training corpus --base FOLDER --folder TEXT"
            )
        if not self.held_out:
            raise CheckpointError("the held-out text has no answer of more than 24 tokens; make it again")
        largest = max(max(answer.tokens) for answer in [*self.answers, *self.held_out])
        if largest >= self.base.shape.vocabulary:
            raise CheckpointError(
                f"the text holds id {largest}, and {self.base.name} has {self.base.shape.vocabulary}; give --text made "
                f"by this base"
            )

    def _seed(self) -> None:
        """Which text comes next is the same in all processes; how it is cut into rows is not."""
        which = f"{self.recipe.seed} {self.progress.steps}"
        self.order = random.Random(which)
        self.rng = random.Random(f"{which} {self.together.rank}")

    def resume(self, weights: Path | None) -> None:
        """Go on from this folder's checkpoint, else start from exported `weights` if given.

        :raises CheckpointError: for weights of another base, or that do not fit.
        """
        checkpoint = self.folder / "run.pt"
        if checkpoint.exists():
            self.progress = resume_run(checkpoint, self.denoiser, self.optimiser, self.trunk.base)
            self._seed()
        elif weights is not None:
            load_weights(self.denoiser, weights, self.trunk.base)

    def _rate(self) -> float:
        left = 1 - self.progress.seconds / (60 * self.recipe.minutes)
        warm = min(1.0, (self.progress.steps + 1) / self.recipe.warm_up)
        return self.recipe.learning_rate * warm * max(self.recipe.floor, left)

    def _backward(self, batch: TrainingBatch, clean: Clean, plain: float, weight: float) -> dict[str, float]:
        size = self.base.shape.vocabulary
        vocabulary = _vocabulary(batch, self.frequent, self.recipe.noise_tokens, size, self.rng)
        aim = Aim(vocabulary, plain, self.recipe.distil)
        loss, parts = denoising_loss(self.trunk, self.denoiser, batch, clean, aim, self.rng)
        (loss * weight).backward()
        self.progress.rows += int(batch.open.sum()) * self.together.count
        return parts

    def step(self, answers: list[TrainingText]) -> dict[str, float]:
        """One optimiser step: speculative groups and diffusion blocks of the same answers."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        groups = self._collated(answers, [group_rows(answer, self.rng, recipe.group) for answer in answers])
        clean = clean_pass(self.trunk, groups)
        losses = {f"group_{name}": value for name, value in self._backward(groups, clean, 0.0, 1.0).items()}
        infill = self.rng.random() < recipe.suffix_share
        rows = suffix_rows if infill else block_rows
        blocks = self._collated(answers, [rows(answer, self.rng, recipe.block) for answer in answers])
        parts = self._backward(blocks, clean, recipe.plain, recipe.block_weight)
        losses |= {f"{'infill' if infill else 'block'}_{name}": value for name, value in parts.items()}
        self.together.mean([weight.grad for weight in self.denoiser.parameters() if weight.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.progress.steps += 1
        return losses

    def _collated(self, answers: list[TrainingText], rows: list[list[TrainingRow]]) -> TrainingBatch:
        return collate(answers, rows).to(self.together.device)

    def _log(self, **values: object) -> None:
        if not self.together.first:
            return
        line = json.dumps({"step": self.progress.steps, "minutes": round(self.progress.seconds / 60, 2), **values})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def evaluate(self) -> None:
        """Log accuracy and tokens per pass on held-out answers."""
        if not self.together.first:
            return
        score = simulate(self.trunk, self.denoiser, self.held_out, self.base.stops, self.recipe.group)
        accuracy = [round(value, 3) for value in score.accuracy]
        self._log(rows=self.progress.rows, accuracy=accuracy, tokens_per_pass=round(score.tokens_per_pass, 3))

    def save(self) -> None:
        """Write the checkpoint and the weights in their shipped form."""
        if not self.together.first:
            return
        mark = self.base.mark
        save_run(self.folder / "run.pt", self.denoiser, self.optimiser, self.progress, mark)
        recipe = {
            KEY: json.dumps(mark),
            "rank": str(self.recipe.rank),
            "group": str(self.recipe.group),
            "block": str(self.recipe.block),
            "distil": str(self.recipe.distil),
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
            for chunk in self._chunks():
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
                self.progress.seconds += self._agreed(time.monotonic() - began)
                if self.progress.seconds - saved > self.recipe.save_every:
                    self.save()
                    saved = self.progress.seconds
                if self.progress.seconds >= 60 * self.recipe.minutes:
                    break
        self.save()
        self.evaluate()
        self.together.wait()

    def _chunks(self) -> list[list[TrainingText]]:
        """Its part of the text in an order that all processes know; each has as many steps."""
        chunks = _sorted_chunks(self.answers, self.recipe.answers, self.order)
        usable = len(chunks) - len(chunks) % self.together.count
        return chunks[self.together.rank : usable : self.together.count]

    def _agreed(self, seconds: float) -> float:
        """The processes' mean, so that all of them stop at the same step."""
        found = torch.tensor([seconds], device=self.together.device)
        self.together.mean([found])
        return float(found)
