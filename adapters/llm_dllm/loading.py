"""What each llm model loads, and the loaded models of this process."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import click

from dllm_plugins.errors import CheckpointError
from dllm_plugins.libraries.collecting import leave_at_once
from dllm_plugins.libraries.collecting import uncollected
from dllm_plugins.messages import message
from llm_dllm.dialect import ENVIRONMENT
from llm_dllm.dialect import FLAGS

if TYPE_CHECKING:
    from dllm_plugins.sharing import SharedModel
    from dllm_plugins.warm.opening import Answering
    from llm_dllm.entry import Entry

#: Those that hold for checkpoints too.
EVERYWHERE = ("dtype", "device")
#: And for GGUF files, of which others stand for the default model's own choices.
OF_FILES = {
    "backend": ("auto", "kernels", "llama_cpp"),
    "weights": ("auto", "blocks", "blocks_int8", "dequantised", "int8"),
}


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """What a model of llm loads.

    :param model_id: what llm calls it.
    :param entry: the registered checkpoint; without one and without a file, the default model.
    :param file: a GGUF file, or a checkpoint's folder, named by its path.
    :param named: whether `load_model` knows it by its name: a registered pair, or a model of a plug-in's.
    """

    model_id: str = "dllm"
    entry: "Entry | None" = None
    file: str | None = None
    named: bool = False

    @property
    def place(self) -> str:
        """What `load_model` is asked for: the files as they were when added, or else where they came from."""
        if self.file is not None:
            return str(Path(self.file).expanduser())
        if self.named:
            return self.model_id
        if self.entry is None:
            return "dllm"
        return self.entry.folder if Path(self.entry.folder).exists() else self.entry.source

    def load_options(self) -> dict[str, Any]:
        """Arguments of `load_model`: the environment's and the checkpoint's own."""
        given: dict[str, Any] = {
            name: os.environ[variable] for name, variable in ENVIRONMENT.items() if os.environ.get(variable)
        }
        if self.entry is None and self.file is None and not self.named:
            return given
        own = {name: getattr(self.entry, name) for name in ("family", "preset", "mask_id")} if self.entry else {}
        more = OF_FILES if self.place.lower().endswith(".gguf") else {}
        kept = {name: value for name, value in given.items() if name in EVERYWHERE or value in more.get(name, ())}
        return kept | own


DEFAULT = LoadChoice()
_held: "dict[str, SharedModel]" = {}
#: What answers in place of these, by the names of models, each with what it was asked for.
_answering: "dict[str, tuple[Any, Answering]]" = {}


def answering(choice: LoadChoice = DEFAULT) -> "Answering":
    """What answers: a running server's model where `DLLM_SERVER` says so and it fits, else that of this process.

    :raises ServerError: if the server of a path does not answer, or does not fit.
    :raises CheckpointError: as :func:`loaded_model` does.
    """
    from dllm_plugins.warm.place import wanted

    place, _ = asked = wanted()
    if place is None:
        return loaded_model(choice)
    from dllm_plugins.warm.opening import open_model

    _check_there(choice)
    key = (asked, choice.place, choice.load_options())
    held = _answering.get(choice.model_id)
    if held is None or held[0] != key:
        held = (key, open_model(choice.place, choice.load_options(), lambda: loaded_model(choice)))
        _answering[choice.model_id] = held
    return held[1]


def loaded_model(choice: LoadChoice = DEFAULT) -> "SharedModel":
    """The model, kept until the process ends or the environment asks for another one in its place.

    :raises CheckpointError: for a path that leads nowhere, and whatever is damaged or unclear.
    """
    _check_there(choice)
    try:
        found = _loaded(choice)
    except CheckpointError as error:
        # A path alone cannot give them.
        if choice.file is None or not error.detail.options() & FLAGS.keys():
            raise
        explained = message("{}; here: `llm dllm add {}` with that option, and use its name", error.detail, choice.file)
        raise CheckpointError(explained) from error
    _held[choice.model_id] = found
    return found


def _check_there(choice: LoadChoice) -> None:
    if choice.file is not None and not Path(choice.file).expanduser().exists():
        raise CheckpointError(
            f"there is no {choice.file!r} in {Path.cwd()}; check the path. `llm dllm models` lists what has a name, "
            f"`llm dllm add OWNER/NAME` fetches a checkpoint from the hub"
        )


def _loaded(choice: LoadChoice) -> "SharedModel":
    # Whoever runs a command has nothing else in the process.
    if click.get_current_context(silent=True) is not None:
        leave_at_once()
    with uncollected():
        from dllm_plugins.sharing import shared_model

        return shared_model(choice.place, **choice.load_options())
