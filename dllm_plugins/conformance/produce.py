"""Write down what we produce for a case, in the layout of the golden data, without reading what was expected."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import first_load
from dllm_plugins.conformance.check import translate
from dllm_plugins.conformance.logits import produce
from dllm_plugins.conformance.logits import recorded
from dllm_plugins.conformance.run import run
from dllm_plugins.errors import DllmError


def write(case: Case, out: Path, backend: str = "torch") -> Path:
    """Write `OUT/<case>/case.json` and `logits.safetensors`.

    Per setting: `output`, `canvases[step][row]`, `forwards` and `forward_kinds` (by count), or
    `refused` with the reason. Rows that end early repeat their last canvas. Rows of
    logits are unpadded: `NAME.logits` is [rows, longest, V], zeros behind a short row.

    :returns: the folder.
    """
    position = out / case.name
    position.mkdir(parents=True, exist_ok=True)
    models = CaseModels(case, backend)
    model = models.get(**first_load(case))
    found: dict[str, Tensor] = {}
    for key in recorded(case):
        found[f"{key}.logits"] = pad_sequence(produce(case, model, key), batch_first=True).contiguous()
    save_file(found, position / "logits.safetensors")
    settings = [_setting(case, setting, models) for setting in case.settings]
    text = json.dumps({"case": case.name, "settings": settings}, indent=1)
    (position / "case.json").write_text(text + "\n", encoding="utf-8")
    return position


def _setting(case: Case, setting: Setting, models: CaseModels) -> dict[str, Any]:
    about: dict[str, Any] = {"name": setting.name, "sampler": setting.sampler, "params": setting.params}
    try:
        play = translate(case, setting)
        traces = run(models.get(**play.load), play)
    except DllmError as error:
        return about | {"refused": str(error)}
    steps = max(len(trace.canvases) for trace in traces)
    canvases = [
        [
            play.lay_out(row, trace.canvases[min(step, len(trace.canvases) - 1)], whole=True)
            for row, trace in enumerate(traces)
        ]
        for step in range(steps)
    ]
    longest = max(traces, key=lambda trace: trace.passes)
    return about | {
        "output": [play.lay_out(row, trace.text, whole=False) for row, trace in enumerate(traces)],
        "canvases": canvases,
        "forwards": longest.passes,
        "forward_kinds": longest.kinds,
    }
