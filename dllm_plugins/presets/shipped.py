"""The puzzle models that come with this package."""

from importlib.resources import files

from dllm_plugins.models import Preset
from dllm_plugins.presets import SHIPPED
from dllm_plugins.presets import SUDOKU
from dllm_plugins.presets.grids import GridReader
from dllm_plugins.presets.model import preset_of


def shipped() -> list[Preset]:
    """All of them."""
    folder = str(files("dllm_plugins") / "data" / "presets" / "sudoku")
    return [preset_of(SUDOKU, SHIPPED[SUDOKU], folder, GridReader((4,)))]
