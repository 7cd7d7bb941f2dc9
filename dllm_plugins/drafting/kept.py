"""What passes cost, kept in the cache folder: measured once for each machine, model form and number of threads."""

import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import torch

from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting.measured import measure
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.whole import beside

#: Goes up when something else is measured, so that older files are measured again.
VERSION = 1
_known: dict[tuple[Path, str], Costs] = {}
_measuring = Lock()


def costs_file() -> Path:
    """Where they are kept."""
    return cache_folder() / "pass-costs.json"


def costs_of(denoiser: FullDenoiser) -> Costs | None:
    """What passes of this denoiser cost here, measured now if it never was; None for one that is not measured.

    A file that is damaged counts as none, and one that cannot be written is done without.
    """
    name = _name(denoiser)
    if name is None:
        return None
    with _measuring:
        place = costs_file(), name
        if place not in _known:
            stored = kept().get(name)
            _known[place] = measure(denoiser) if stored is None else stored
            if stored is None:
                with suppress(OSError, CheckpointError):
                    _change(name, _known[place])
        return _known[place]


def kept() -> dict[str, Costs]:
    """What was measured, by the model's form, the number of threads and the machine."""
    found = {}
    with suppress(CheckpointError):
        read = read_object(costs_file())
        costs = read.get("costs") if read.get("version") == VERSION else None
        for name, stored in costs.items() if isinstance(costs, dict) else ():
            with suppress(ValueError):
                found[name] = Costs.read(stored)
    return found


def forget() -> bool:
    """Measure all anew when it is needed next; whether there was anything to forget."""
    place = costs_file()
    for name in [name for name in _known if name[0] == place]:
        del _known[name]
    was_there = place.exists()
    place.unlink(missing_ok=True)
    return was_there


def doubt(denoiser: FullDenoiser) -> None:
    """Measure anew what passes of this one cost when needed next. A file that cannot be written stays as it is."""
    name = _name(denoiser)
    if name is not None and _known.pop((costs_file(), name), None) is not None:
        with suppress(OSError, CheckpointError):
            _change(name, None)


def _name(denoiser: FullDenoiser) -> str | None:
    """What its costs are kept under; None for one that is not measured."""
    form = denoiser.form()
    return None if form is None else f"{form}, threads: {torch.get_num_threads()}, {this_machine()}"


def _change(name: str, costs: Costs | None) -> None:
    """Keep these, or forget those of that name."""
    place = costs_file()
    place.parent.mkdir(parents=True, exist_ok=True)
    with beside(place, wait=True) as part:
        # Others may have written meanwhile.
        found = kept() | {name: costs}
        stored = {key: known.stored() for key, known in found.items() if known is not None}
        part.write_text(json.dumps({"version": VERSION, "costs": stored}, indent=1), encoding="utf-8")


def this_machine() -> str:
    """The machine, and the version of this package, where it is installed."""
    return f"{_machine()}{_version()}"


def _version() -> str:
    """Another version may compute passes otherwise; nothing in a checkout that was never installed."""
    with suppress(PackageNotFoundError):
        return f", dllm-plugins {version('dllm-plugins')}"
    return ""


def _machine() -> str:
    """The processor's name, as far as the system tells it, and how many there are."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{os.cpu_count()} x {name}"
