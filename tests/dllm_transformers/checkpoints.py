"""Golden checkpoints as folders users would have: with a mask id where the config has none, and a tokenizer."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ..gguf.checkpoints import make
from ..golden.cases import FOLDERS

#: What users must say because the configs do not.
NEEDED = {
    "dreamon": {"preset": "dreamon"},
    "open_dcoder": {"family": "open_dcoder"},
    "llada2_0": {"preset": "llada2.0"},
    "llada2_1": {"preset": "llada2.1"},
    "llada2_2_indel": {"preset": "llada2.2"},
}

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
#: Of a checkpoint that can be spoken to: those of the tiny model's tokenizer, and some more.
IDS = 264


@dataclass(frozen=True)
class Case:
    """A case of the golden data."""

    name: str
    folder: Path

    @property
    def about(self) -> dict[str, Any]:
        """case.json."""
        found: dict[str, Any] = json.loads((self.folder / "case.json").read_text())
        return found

    @property
    def logits(self) -> dict[str, Tensor]:
        """The reference's logits and what they are of."""
        return load_file(self.folder / "logits.safetensors")


def copy_of(name: str, target: Path, tokenizer: Path) -> Path:
    """A folder with the checkpoint, its mask id and a tokenizer."""
    shutil.copytree(FOLDERS[name] / "checkpoint", target)
    mask = Case(name, FOLDERS[name]).about.get("mask_id")
    change(target, **({} if mask is None else {"mask_token_id": mask}))
    for file in TOKENIZER:
        shutil.copy(tokenizer / file, target)
    return target


def change(folder: Path, **values: Any) -> None:
    """Set keys of a folder's config.json."""
    place = folder / "config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **values}))


def spoken(family: str, target: Path, tokenizer: Path, **more: Any) -> Path:
    """A family's tiny checkpoint with random weights, in which the tiny model's tokenizer has all its ids.

    :param more: what its config says otherwise.
    """
    size = "embedding_size" if family == "llada" else "vocab_size"
    make(target, family, mask_token_id=IDS - 1, eos_token_id=2, **{size: IDS, **more})
    for file in TOKENIZER:
        shutil.copy(tokenizer / file, target)
    return target
