"""A case's checkpoint as a GGUF file, so that llama.cpp computes its passes."""

import shutil
from pathlib import Path
from tempfile import mkdtemp
from weakref import finalize

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError


class CannotError(DllmError):
    """llama.cpp has no graph that computes this checkpoint."""


class Converted:
    """The float32 files of one checkpoint, in a temporary folder that goes with this object.

    :param checkpoint: its folder.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._folder = Path(mkdtemp(prefix="dllm-conformance-"))
        finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._made: dict[tuple[str | None, int | None], Path] = {}

    def file(self, family: str | None, mask_id: int | None) -> Path:
        """The file for these options, converted when it is asked for first.

        :raises CannotError: if it cannot be converted, with the reason.
        """
        key = (family, mask_id)
        if key not in self._made:
            from dllm_plugins.gguf.header import read_header
            from dllm_plugins.gguf.relabel import with_memory
            from dllm_plugins.llama_cpp.convert import convert

            out = self._folder / f"{len(self._made)}.gguf"
            try:
                convert(self.checkpoint, out, "F32", family=family, mask_id=mask_id)
            except CheckpointError as error:
                raise CannotError(str(error)) from error
            # Not in the user's cache, which outlives this object.
            self._made[key] = with_memory(read_header(out), self._folder)
        return self._made[key]
