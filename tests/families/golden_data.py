"""Where the golden data is."""

import os
from pathlib import Path

HERE = Path(__file__).parent
#: A small part of it is in every clone, with what was recorded for this repository.
PART = HERE / "golden"
#: The whole lies beside a developer's clone.
WHOLE = Path(os.environ.get("DLLM_ORACLE", HERE.parents[2] / "shared" / "oracle"))
FOLDER = WHOLE if WHOLE.is_dir() else PART


def case_folders() -> list[Path]:
    """All cases there are; those of the part that the whole has too are taken from the whole."""
    found = {path.parent.name: path.parent for folder in (PART, WHOLE) for path in folder.glob("*/case.json")}
    return [found[name] for name in sorted(found)]
