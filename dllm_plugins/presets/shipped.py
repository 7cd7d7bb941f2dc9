"""The puzzle models that come with this package."""

from importlib.resources import files

from dllm_plugins.models import Preset
from dllm_plugins.presets import PATH
from dllm_plugins.presets import SHIPPED
from dllm_plugins.presets import SUDOKU
from dllm_plugins.presets.grids import GridReader
from dllm_plugins.presets.model import preset_of
from dllm_plugins.presets.routes import RouteReader


def shipped() -> list[Preset]:
    """All of them."""
    folder = files("dllm_plugins") / "data" / "presets"
    return [
        preset_of(SUDOKU, SHIPPED[SUDOKU], str(folder / "sudoku"), GridReader((4,))),
        preset_of(PATH, SHIPPED[PATH], str(folder / "path"), RouteReader(5)),
    ]
