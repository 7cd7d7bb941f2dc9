"""One case folder of golden data: a checkpoint, recorded logits, and settings with their outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from dllm_plugins.conformance import archives
from dllm_plugins.denoisers.weights import read_file
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import read_object


@dataclass(frozen=True)
class Setting:
    """One run of a reference sampler.

    :param raw: the entry of case.json. What was expected of it is read in
        :mod:`~dllm_plugins.conformance.compare` only.
    """

    raw: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name within the case."""
        return str(self.raw["name"])

    @property
    def sampler(self) -> str:
        """The reference's name for its sampler."""
        return str(self.raw["sampler"])

    @property
    def params(self) -> dict[str, Any]:
        """The reference's arguments; those at their defaults are absent."""
        return dict(self.raw["params"])

    @property
    def quirk(self) -> str | None:
        """The defect of the reference that the setting records, if it does."""
        return self.raw.get("quirk")

    @property
    def inputs(self) -> dict[str, Any]:
        """What the reference received."""
        return dict(self.raw["inputs"])

    @property
    def prompts(self) -> list[list[int]]:
        """Unpadded prompts."""
        return [list(prompt) for prompt in self.inputs["prompts"]]


@dataclass(frozen=True)
class Case:
    """A folder with case.json, checkpoint/ and logits.safetensors."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def about(self) -> dict[str, Any]:
        """case.json.

        :raises CheckpointError: if it cannot be read.
        """
        return read_object(self.folder / "case.json", "give a case folder with case.json in it")

    @property
    def settings(self) -> Sequence[Setting]:
        """All of them, in order."""
        return [Setting(raw) for raw in self.about["settings"]]

    @cached_property
    def logits(self) -> dict[str, Tensor]:
        """Recorded sequences and what the reference said at each position."""
        return read_file(self.folder / "logits.safetensors", "get the case again")


def find_cases(folders: Sequence[Path]) -> list[Case]:
    """The folders themselves, or the cases inside them, unpacked where they are archives.

    :raises CheckpointError: for a folder that is no case and holds none, and for damaged archives.
    """
    found: list[Case] = []
    for folder in folders:
        if (folder / "case.json").exists():
            inside = [folder]
        elif archives.are_in(folder):
            inside = archives.unpacked(folder)
        else:
            inside = sorted(path.parent for path in folder.glob("*/case.json"))
        if not inside:
            raise CheckpointError(f"{folder} has no case.json, nor has a folder in it; give a folder of golden cases")
        found += [Case(position) for position in inside]
    return found
