"""One run from a base to a diffusion model: start, training, model, scores, card; what is there is not made again."""

import json
import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM

from dllm_plugins.denoisers.placement import DTYPES
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.files.replacing import read_config
from dllm_plugins.files.whole import whole
from dllm_plugins.models import load_model
from dllm_plugins.training.base import open_base
from dllm_plugins.training.conversion.bounds import bound
from dllm_plugins.training.conversion.bounds import likelihood
from dllm_plugins.training.conversion.card import card
from dllm_plugins.training.conversion.curves import draw
from dllm_plugins.training.conversion.evaluate import asked
from dllm_plugins.training.conversion.evaluate import checks
from dllm_plugins.training.conversion.evaluate import decoded
from dllm_plugins.training.conversion.evaluate import reads_back
from dllm_plugins.training.conversion.evaluate import trials
from dllm_plugins.training.conversion.start import copy_tokenizer
from dllm_plugins.training.conversion.start import place_of
from dllm_plugins.training.conversion.start import write_start
from dllm_plugins.training.conversion.targets import TARGETS
from dllm_plugins.training.conversion.text import Row
from dllm_plugins.training.conversion.text import rows_of
from dllm_plugins.training.conversion.text import split
from dllm_plugins.training.conversion.text import unfilled
from dllm_plugins.training.conversion.train import ConversionRecipe
from dllm_plugins.training.conversion.train import check_recipe
from dllm_plugins.training.conversion.train import finished
from dllm_plugins.training.conversion.train import train
from dllm_plugins.training.corpus import text_in
from dllm_transformers import DiffusionCollator
from dllm_transformers import DiffusionModelForCausalLM


@dataclass(frozen=True, slots=True)
class EvaluationSize:
    """How much is looked at when a model is measured.

    :param texts: held-out texts whose bound is estimated, with `draws` of noise each.
    :param prompts: held-out prompts that are decoded, with at most `tokens` tokens an answer.
    """

    texts: int
    draws: int
    prompts: Sequence[str]
    tokens: int


class Conversion:
    """A run in `folder`: `start/` before and `model/` after it, `trainer/` with checkpoints, `scores.json`, `curve.png`.

    :param base: a folder, a hub id, a GGUF file of the default base, or None for the default base.
    :raises CheckpointError: for a base that cannot be converted, and for a folder with another run.
    :raises OptionError: for a target that does not take this base.
    """

    def __init__(self, base: str | None, folder: Path, recipe: ConversionRecipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe, self.target = folder, recipe, TARGETS[recipe.to]
        self.together = PartialState(cpu=not torch.cuda.is_available())
        # One process writes, and the others find it written.
        with self.together.main_process_first():
            self.base = place_of(base, folder / "base")
            self.name = _name(base, self.base)
            check_recipe(folder, recipe, self.name)
            write_start(self.base, recipe.to, recipe.block, self.start)
        self.tokenizer = load_tokenizer(self.start)

    @property
    def start(self) -> Path:
        """The model before the first step."""
        return self.folder / "start"

    @property
    def model(self) -> Path:
        """The model after the last one."""
        return self.folder / "model"

    def rows(self, model: Any, text: Sequence[Path], held_out: Sequence[Path]) -> tuple[list[Row], list[Row]]:
        """Text to train on, and held-out text: of the files for it, or one text of every twenty."""
        collator = self._collator(model)
        stops = frozenset({*model.spec.stop_ids, collator.end_id})

        def read(places: Sequence[Path]) -> list[Row]:
            files = [file for place in places for file in (self._corpus(place) if place.is_dir() else [place])]
            return rows_of(files, collator, stops, self.recipe.block, self.target.canvas)

        return (read(text), read(held_out)) if held_out else split(read(text))

    def _corpus(self, folder: Path) -> list[Path]:
        return text_in(folder, open_base(self.base, "float32", "cpu"))

    def _collator(self, model: Any) -> DiffusionCollator:
        # What only fills up a batch is learnt where a model fills a canvas.
        canvas = self.target.canvas
        return DiffusionCollator(model, self.tokenizer, max_length=self.recipe.length, learn_padding=canvas)

    def make(
        self, text: Sequence[Path], held_out: Sequence[Path], asked_for: EvaluationSize, say: Callable[[str], None]
    ) -> None:
        """Train, or go on; then write the model, its scores, curve and card.

        :param say: told where things are.
        """
        trainer = self.folder / "trainer"
        model = _opened(finished(trainer, self.recipe.steps) or self.start, torch.float32)
        rows, held = self.rows(model, text, held_out)
        if len(rows) < self.recipe.batch * self.recipe.gather * self.together.num_processes:
            raise CheckpointError(f"{len(rows)} texts are too few for a step; give more --text, or a smaller --batch")
        state = train(model, self._collator(model), rows, held, trainer, self.recipe)
        if not self.together.is_main_process:
            return
        self._save(model)
        scores = {
            "steps": state.global_step,
            "processes": self.together.num_processes,
            "texts": len(rows),
            "tokens": sum(len(row["input_ids"]) for row in rows),
            **self._measured(model, held, asked_for),
        }
        draw(state.log_history, scores["base_nats"], self.folder / "curve.png")
        self._write("scores.json", json.dumps(scores, indent=1) + "\n")
        about = {**asdict(self.recipe), "base": self.name}
        self._write("model/README.md", card(about, scores, self.model.as_posix()))
        say(f"{self.model} is the model, its README.md says what it is worth, {self.folder / 'curve.png'} how it came")

    def _write(self, name: str, text: str) -> None:
        with whole(self.folder / name) as part:
            part.write_text(text, encoding="utf-8")

    def _save(self, model: Any) -> None:
        """The weights in the dtype of the base, with the tokenizer."""
        dtype = DTYPES.get(str(read_config(self.start).get("dtype")), torch.float32)
        # Not the angles of positions, which stay float32 where a model is loaded.
        for weight in model.parameters():
            weight.data = weight.data.to(dtype)
        with whole(self.model) as part:
            model.save_pretrained(part)
            copy_tokenizer(self.start, part)

    def _measured(self, model: Any, held: Sequence[Row], asked_for: EvaluationSize) -> dict[str, Any]:
        """What `scores.json` says of the model as it was saved."""
        recipe, texts = self.recipe, held[: asked_for.texts]
        saved = _opened(self.model, model.dtype)
        if not reads_back(model, saved, texts[0]["input_ids"]):
            raise CheckpointError(f"{self.model} gives other logits than the model that was saved; remove it and go on")
        # A run in float32 is one on a processor that computes bfloat16, which is stored, very slowly.
        dtype = torch.float32 if recipe.dtype == "float32" else model.dtype
        base: Any = AutoModelForCausalLM.from_pretrained(self.base, dtype=dtype, trust_remote_code=False).eval()
        nats = likelihood(base, [unfilled(row) for row in texts])
        measured = _opened(self.start, dtype), saved.to(dtype)
        before, after = (bound(each, texts, asked_for.draws) for each in measured)
        engine = load_model(str(self.model))
        prompts = asked(engine, asked_for.prompts)
        tried = trials(recipe.to, recipe.block, asked_for.tokens)
        return {
            "held_out_texts": len(texts),
            "base_nats": nats,
            "base_perplexity": math.exp(nats),
            "bound_before": before.nats,
            "bound": after.nats,
            "error": after.error,
            "perplexity": after.perplexity,
            "prompts": len(prompts),
            "answer_tokens": asked_for.tokens,
            "decoded": [asdict(decoded(engine, base, prompts, asked_for.tokens, options)) for options in tried],
            "checks": [asdict(each) for each in checks(engine, prompts[:4], asked_for.tokens, recipe.block)],
        }


def _opened(folder: Path, dtype: torch.dtype) -> Any:
    return DiffusionModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False)


def _name(base: str | None, place: Path) -> str:
    """What the base is called: a file's or a folder's own name, or its hub id."""
    given = place if base is None else Path(base)
    return given.name.removesuffix(".gguf") if base is None or given.exists() else base
