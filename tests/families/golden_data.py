"""Where the golden data is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dllm_plugins import Model
from dllm_plugins.conformance.case import Case

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


def modes_of(case: Case, model: Model) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Every sampler this checkpoint has the ids for, with the options that name them."""
    for mode in dict.fromkeys(model.denoiser.spec.samplers.values()):
        if mode == "dreamon" and "expand_id" in case.about:
            yield mode, {"expand_token_id": case.about["expand_id"], "eos_token_id": case.about["eos_id"]}
        elif mode not in ("dreamon", "llada2.2") or case.name == "llada2_2_indel":
            yield mode, None
