"""The training loop: a fixed number of steps, resumable to the bit, logged."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.files.whole import whole
from dllm_plugins.training.blocks.batches import BlockBatch
from dllm_plugins.training.blocks.batches import layout
from dllm_plugins.training.blocks.batches import noised
from dllm_plugins.training.blocks.export import export
from dllm_plugins.training.blocks.puzzles import CELLS
from dllm_plugins.training.blocks.puzzles import MASK_ID
from dllm_plugins.training.blocks.puzzles import Puzzles
from dllm_plugins.training.blocks.puzzles import split
from dllm_plugins.training.blocks.recipe import BlockRecipe
from dllm_plugins.training.blocks.recipe import new_model
from dllm_plugins.training.kept_run import resume_run
from dllm_plugins.training.kept_run import save_run

#: Held-out puzzles come from streams behind those of all steps.
HELD_OUT_STREAM = 2**31


def stream(seed: int, step: int) -> torch.Generator:
    """The noise of one step, whatever ran before it."""
    return torch.Generator().manual_seed((seed << 32) + step + 1)


def learning_rate(recipe: BlockRecipe, step: int) -> float:
    """The rate of step `step`, counted from 0."""
    warm = min(1.0, (step + 1) / recipe.warm_up)
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


class BlockRun:
    """One training run in `folder`: checkpoint `run.pt`, the model in `model/`, `log.jsonl`."""

    def __init__(self, folder: Path, recipe: BlockRecipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe = folder, recipe
        self.training, self.held_out = split(recipe.seed)
        self.model: Any = new_model(recipe).train()
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self.positions, sees = layout(CELLS, CELLS, recipe.block_length)
        self.mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]
        self.steps, self.seconds = 0, 0.0

    def resume(self) -> None:
        """Go on from this folder's checkpoint, if there is one.

        :raises CheckpointError: if it was made by another recipe.
        """
        found = resume_run(self.folder / "run.pt", self.model, [self.optimiser], self._fixed())
        if found:
            self.steps, self.seconds = found["steps"], found["seconds"]

    def _fixed(self) -> dict[str, Any]:
        """What a run may not change half-way."""
        free = ("log_every", "save_every")
        return {name: getattr(self.recipe, name) for name in BlockRecipe.__slots__ if name not in free}

    def save(self) -> None:
        """Write the checkpoint, so that an interrupted write loses nothing, and the model."""
        progress = {"steps": self.steps, "seconds": self.seconds}
        save_run(self.folder / "run.pt", self.model, [self.optimiser], self._fixed(), **progress)
        with whole(self.folder / "model") as part:
            export(self.model, self.recipe, part)

    def batch(self, puzzles: Puzzles, step: int, count: int) -> BlockBatch:
        """The examples of one step."""
        generator = stream(self.recipe.seed, step)
        prompts, answers = puzzles.draw(count, generator)
        return noised(prompts, answers, self.recipe.block_length, MASK_ID, generator)

    def loss(self, batch: BlockBatch) -> Tensor:
        """Nats a block of masked diffusion, averaged over blocks; a bound on its true surprise."""
        width = batch.targets.shape[1]
        positions = self.positions.expand(len(batch.tokens), -1)
        logits = self.model(
            batch.tokens, attention_mask=self.mask, position_ids=positions, use_cache=False, logits_to_keep=0
        ).logits[:, :width]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
        blocks = batch.targets.numel() / self.recipe.block_length
        weighted: Tensor = (losses.view_as(batch.weights) * batch.weights).sum() * self.recipe.block_length / blocks
        return weighted

    def step(self) -> float:
        """One optimiser step."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe, self.steps)
        loss = self.loss(self.batch(self.training, self.steps, self.recipe.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        return float(loss.detach())

    @torch.no_grad()
    def held_out_loss(self, count: int = 512) -> float:
        """The loss on puzzles of boards that training never sees."""
        return float(self.loss(self.batch(self.held_out, HELD_OUT_STREAM, count)))

    def train(self, until: int | None = None) -> None:
        """Train up to step `until`, or to the end."""
        total = 0.0
        while self.steps < (self.recipe.steps if until is None else until):
            began = time.monotonic()
            total += self.step()
            self.seconds += time.monotonic() - began
            if self.steps % self.recipe.log_every == 0:
                self._log(loss=round(total / self.recipe.log_every, 4), held_out=round(self.held_out_loss(), 4))
                total = 0.0
            if self.steps % self.recipe.save_every == 0:
                self.save()
        self.save()

    def _log(self, **values: object) -> None:
        line = json.dumps({"step": self.steps, "minutes": round(self.seconds / 60, 2), **values})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")
