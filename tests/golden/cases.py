"""The golden cases for tests: those of this folder, and others in their place where `DLLM_ORACLE` names a folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dllm_plugins import Model
from dllm_plugins.conformance.archives import OWN
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import find_cases

#: Those of every clone, by name.
CLONED = {case.name: case.folder for case in find_cases([OWN])}
#: All there are. A folder that is named and holds no case is an error, not a smaller set of tests.
FOLDERS = CLONED | {
    case.name: case.folder for case in find_cases([Path(named) for named in [os.environ.get("DLLM_ORACLE")] if named])
}


def case_folders() -> list[Path]:
    """All cases there are, by name."""
    return [FOLDERS[name] for name in sorted(FOLDERS)]


def modes_of(case: Case, model: Model) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Every sampler this checkpoint has the ids for, with the options that name them."""
    for mode in dict.fromkeys(model.denoiser.spec.samplers.values()):
        if mode == "dreamon" and "expand_id" in case.about:
            yield mode, {"expand_token_id": case.about["expand_id"], "eos_token_id": case.about["eos_id"]}
        elif mode not in ("dreamon", "llada2.2") or case.name == "llada2_2_indel":
            yield mode, None
