"""Training the converted model with the Trainer of transformers: resumable, its curve kept."""

import json
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers import TrainerState
from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.whole import whole
from dllm_plugins.training.conversion.bounds import bound
from dllm_plugins.training.conversion.text import Row

#: In the run's folder: what it was begun with.
ABOUT = "recipe.json"


@dataclass(frozen=True, slots=True)
class ConversionRecipe:
    """Every number of a run; the learning rate warms up and falls linearly to 0 at the last step.

    :param batch: texts of a step, in each process; `gather` such batches make one step.
    :param length: tokens of a text at most.
    :param dtype: what is computed in; weights and optimiser are float32 while training.
    :param watched: held-out texts whose bound is looked at every `look_every` steps.
    """

    to: str
    block: int
    steps: int = 400
    seed: int = 0
    batch: int = 8
    gather: int = 1
    length: int = 256
    learning_rate: float = 2e-4
    warm_up: int = 10
    weight_decay: float = 0.0
    dtype: str = "bfloat16"
    watched: int = 16
    look_every: int = 25
    save_every: int = 50

    def arguments(self, folder: Path, *, begins: bool) -> TrainingArguments:
        """The same in transformers' words.

        :param begins: look before the first step.
        """
        return TrainingArguments(
            output_dir=str(folder),
            max_steps=self.steps,
            seed=self.seed,
            per_device_train_batch_size=self.batch,
            gradient_accumulation_steps=self.gather,
            learning_rate=self.learning_rate,
            warmup_steps=self.warm_up,
            weight_decay=self.weight_decay,
            use_cpu=not torch.cuda.is_available(),
            bf16=self.dtype == "bfloat16",
            # Little padding.
            train_sampling_strategy="group_by_length",
            eval_strategy="steps",
            eval_steps=self.look_every,
            eval_on_start=begins,
            logging_steps=min(10, self.look_every, self.steps),
            save_steps=self.save_every,
            save_total_limit=1,
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to=[],
            disable_tqdm=True,
        )


class _Watching(Trainer):
    """Evaluates by the bound of held-out texts, with noise that is the same each time."""

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Log `eval_bound`, in nats a token."""
        model: Any = self.accelerator.unwrap_model(self.model)
        found = {"eval_bound": round(bound(model, self.eval_dataset, 1).nats, 4)}  # type: ignore[arg-type]
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


def check_recipe(folder: Path, recipe: ConversionRecipe, base: str) -> None:
    """Note what a run is begun with, or see that it goes on with the same.

    :raises CheckpointError: naming what differs.
    """
    path, about = folder / ABOUT, {**asdict(recipe), "base": base}
    if not path.exists():
        with whole(path) as part:
            part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    found = read_object(path)
    other = [f"{name}={found.get(name)!r}" for name, value in about.items() if found.get(name) != value]
    if other:
        raise CheckpointError(f"the run in {folder} was begun with {', '.join(other)}; say so, or use another --folder")


def finished(folder: Path, steps: int) -> Path | None:
    """The checkpoint of a run that has had all its steps.

    The Trainer of transformers 5.24 that goes on from it would make one more.
    """
    last = _last(folder)
    return last if last is not None and _state(last).global_step >= steps else None


def _last(folder: Path) -> Path | None:
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if found is None else Path(found)


def _state(checkpoint: Path) -> TrainerState:
    found: TrainerState = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return found


def train(
    model: Any, collator: Any, rows: list[Row], held_out: list[Row], folder: Path, recipe: ConversionRecipe
) -> TrainerState:
    """Train, or go on from the last checkpoint in the folder; returns the steps and what was logged.

    :param model: a :class:`~dllm_transformers.DiffusionModelForCausalLM` in float32; that of :func:`finished` where
        all steps are done.
    """
    if (done := finished(folder, recipe.steps)) is not None:
        return _state(done)
    last = _last(folder)
    # Nobody reads the logits.
    model.loss_only = True
    trainer = _Watching(
        model,
        recipe.arguments(folder, begins=last is None),
        train_dataset=rows,
        eval_dataset=held_out[: recipe.watched],
        data_collator=collator,
    )
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    state: TrainerState = trainer.state
    return state
