"""Training one cell of the table: a fixed number of steps, resumable, its best weights kept."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.reasoning.task import Task
from dllm_plugins.training.kept_run import resume_run
from dllm_plugins.training.kept_run import save_run
from dllm_plugins.training.reasoning.data import Data
from dllm_plugins.training.reasoning.data import order_of
from dllm_plugins.training.reasoning.data import training_data
from dllm_plugins.training.reasoning.data import watched_data
from dllm_plugins.training.reasoning.export import export
from dllm_plugins.training.reasoning.methods import METHODS
from dllm_plugins.training.reasoning.methods import Batch
from dllm_plugins.training.reasoning.recipe import MASK
from dllm_plugins.training.reasoning.recipe import CellRecipe
from dllm_plugins.training.reasoning.recipe import new_model
from dllm_plugins.training.reasoning.recipe import words_of

#: Held-out examples whose loss decides which weights are the best, and the noise they get.
WATCHED, QUIET = 512, 2**31


class CellRun:
    """One run in `folder`: checkpoint `run.pt`, the best weights in `model/`, the curve in `log.jsonl`."""

    def __init__(self, folder: Path, task: Task, method: str, recipe: CellRecipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.task, self.recipe = folder, task, recipe
        self.name, self.method = method, METHODS[method]
        order = torch.tensor(order_of(self.method, task))
        self.data = _ordered(training_data(task, recipe.examples, recipe.seed, folder.parent / "data"), order)
        self.watched = _ordered(watched_data(task, WATCHED), order)
        self.model: Any = new_model(recipe, task).train()
        if recipe.begin:
            self.model.load_state_dict(weights_of(folder.parent / recipe.begin))
        self.optimisers = optimisers(self.model, recipe)
        self.steps, self.seconds, self.best = 0, 0.0, float("inf")

    def finish(self) -> None:
        """Train to the end, from where a run in this folder stood; no other process may do so meanwhile."""
        with alone(self.folder / "run.pt", wait=False):
            self.resume()
            self.train()

    def resume(self) -> None:
        """Go on from this folder's checkpoint, if there is one.

        :raises CheckpointError: if it was made by another recipe.
        """
        found = resume_run(self.folder / "run.pt", self.model, self.optimisers, self.cell())
        if found:
            self.steps, self.seconds, self.best = found["steps"], found["seconds"], found["best"]

    def cell(self) -> dict[str, Any]:
        """Which cell it is, and what a run may not change half-way."""
        return {"task": self.task.name, "method": self.name, **self.recipe.as_json()}

    def save(self) -> None:
        """Write the checkpoint, so that an interrupted write loses nothing."""
        progress = {"steps": self.steps, "seconds": self.seconds, "best": self.best}
        save_run(self.folder / "run.pt", self.model, self.optimisers, self.cell(), **progress)

    def batch(self, data: Data, stream: int) -> Batch:
        """Examples with the noise of one stream."""
        words = words_of(self.task)
        generator = torch.Generator().manual_seed((self.recipe.seed << 32) + stream)
        return Batch(data.prompts, data.answers, words.index(MASK), len(words), self.recipe.block, generator)

    def _rows(self, step: int) -> Data:
        """The examples of a step: every one once, in an order of its own in each round."""
        count, size = len(self.data), self.recipe.batch
        first = step * size
        order = torch.cat([_permutation(count, self.recipe.seed, first // count + more) for more in (0, 1)])
        return self.data.rows(order[first % count : first % count + size])

    def step(self) -> float:
        """One optimiser step; its loss."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.recipe.rate(self.steps) * group["share"]
        loss = self.method.loss(self.model, self.batch(self._rows(self.steps), self.steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.steps += 1
        return float(loss.detach())

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The loss on examples that training never sees, always with the same noise."""
        return float(self.method.loss(self.model, self.batch(self.watched, QUIET)))

    def train(self, until: int | None = None) -> None:
        """Train up to step `until`, or to the end."""
        total, begun = 0.0, self.steps
        while self.steps < min(self.recipe.steps, self.recipe.steps if until is None else until):
            began = time.monotonic()
            total += self.step()
            self.seconds += time.monotonic() - began
            if self.steps % self.recipe.look_every == 0 or self.steps == self.recipe.steps:
                self._look(total / (self.steps - begun))
                total, begun = 0.0, self.steps
        self.save()

    def _look(self, loss: float) -> None:
        """Log, keep the weights if they are the best so far, and write the checkpoint."""
        held_out = self.held_out_loss()
        if held_out <= self.best:
            self.best = held_out
            with whole(self.folder / "model") as part:
                export(self.model, self.method, self.recipe, self.task, part)
                about = {**self.cell(), "step": self.steps, "minutes": round(self.seconds / 60, 2)}
                (part / "cell.json").write_text(json.dumps(about, indent=1) + "\n")
        values = {"step": self.steps, "minutes": round(self.seconds / 60, 2)}
        line = json.dumps({**values, "loss": round(loss, 4), "held_out": round(held_out, 4)})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        self.save()


def weights_of(cell: Path) -> dict[str, torch.Tensor]:
    """The last weights of a cell.

    :raises CheckpointError: if it was not trained.
    """
    path = cell / "run.pt"
    if not path.exists():
        raise CheckpointError(f"{path} is not there; train {cell.name} first")
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return found


def optimisers(model: Any, recipe: CellRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [part for name, part in model.named_parameters() if part.ndim == 2 and ".layers." in name]
    inner = {id(part) for part in matrices}
    others = [part for part in model.parameters() if id(part) not in inner]
    muon = torch.optim.Muon(
        [{"params": matrices, "share": 1.0}], weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW([{"params": others, "share": 1.0}], betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    return [muon, adam]


def _ordered(data: Data, order: torch.Tensor) -> Data:
    return Data(data.prompts, data.answers[:, order])


def _permutation(count: int, seed: int, round_: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed << 32) + QUIET + 1 + round_))
