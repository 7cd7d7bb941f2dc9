"""Builds wheels of one platform, with the compiled kernels inside, where DLLM_BUILD_KERNELS=1 asks for it.

A wheel holds a library for each instruction set of its kind of machine; the best one is chosen when it runs. Without
the variable the wheel is for every platform, and `python -m dllm_plugins setup` compiles.
"""

import os
import platform
import runpy
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASKED = "DLLM_BUILD_KERNELS"


class KernelsHook(BuildHookInterface[Any]):
    """See above."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, add the libraries and name the platform; editable installs compile when they are set up."""
        if version != "standard" or os.environ.get(ASKED) != "1":
            return
        compiled = Path(self.root, "kernels", "dllm_kernels", "compiled", "targets.py")
        known = runpy.run_path(str(compiled), run_name="dllm_kernels.compiled.targets")
        self._folder = Path(tempfile.mkdtemp(prefix="dllm-kernels-"))
        machine = platform.machine().lower()
        targets = [name for name, target in known["TARGETS"].items() if machine in target.machine]
        if not targets:
            raise RuntimeError(f"{ASKED}=1: there are no kernels for this machine ({machine}); leave it out")
        for target in targets:
            out = self._folder / known["file_name"](target)
            subprocess.run(known["command"](_compiler(), target, out), check=True)
            build_data["force_include"][str(out)] = f"dllm_kernels/compiled/shipped/{out.name}"
        build_data["pure_python"] = False
        # They need neither Python's interfaces nor torch's.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        if shutil.which(name):
            return name
    raise RuntimeError(f"{ASKED}=1: no C++ compiler was found; install g++, or leave it out")
