"""Programs in processes of their own that need not import torch and transformers again: forks of one that has.

For what a process is killed in, or what its memory is measured of. What a program imports, or says when it
starts, is told by a fresh interpreter only.
"""

import os
import sys
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

#: What every program of the tests begins with.
PRELOADED = [
    "torch",
    "transformers.models.llama.modeling_llama",
    "dllm_plugins.builtin",
    "dllm_plugins.denoisers.kernel",
    "dllm_plugins.families.checkpoint",
    "dllm_plugins.jobs",
    "dllm_plugins.llama_cpp.convert",
]


class Done(NamedTuple):
    """How a program ended.

    :param code: its exit code; minus a signal's number if that ended it.
    """

    code: int | None
    stdout: str
    stderr: str


def _execute(code: str, arguments: list[str], environment: dict[str, str], out: str) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{out}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [*environment.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()


def start(code: str, *arguments: str, out: str) -> ForkServerProcess:
    """Run a program as `python -c` does, in this environment; what it prints stands in two files in folder `out`."""
    server = get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    process = server.Process(target=_execute, args=(code, [*arguments], dict(os.environ), out))
    process.start()
    return process


def run(code: str, *arguments: str) -> Done:
    """The same, to its end."""
    with TemporaryDirectory() as out:
        process = start(code, *arguments, out=out)
        process.join()
        said, errors = ((Path(out) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    return Done(process.exitcode, said, errors)
