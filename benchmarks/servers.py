"""Servers that benchmarks ask: programs of their own, on loopback, with the same weights."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import httpx

HOST = "127.0.0.1"
#: Seconds that a server may take to come up.
START = 300.0


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers.

    :param model: what requests call its model.
    :param process: its id.
    """

    address: str
    model: str
    process: int

    def figure(self, *names: str) -> int:
        """The sum of all figures of a server of ours whose names begin so."""
        lines = httpx.get(self.address.removesuffix("/v1") + "/metrics").text.splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith(names)))


def ours(*arguments: str) -> tuple[str, ...]:
    """The command of a server of ours; `{port}` is filled in."""
    return (sys.executable, "-m", "dllm_plugins", "serve", "--host", HOST, "--port", "{port}", *arguments)


def of_transformers(folder: Path, *arguments: str) -> tuple[str, ...]:
    """`transformers serve` with a folder's model, loaded beforehand."""
    program = str(Path(sys.executable).with_name("transformers"))
    return (program, "serve", str(folder), "--host", HOST, "--port", "{port}", "--device", "cpu", *arguments)


def of_llama_cpp(file: Path, threads: int, *arguments: str) -> tuple[str, ...]:
    """llama-cpp-python's server. By itself it breaks off a stream when the next request comes; here it does not."""
    numbers = ("--n_ctx", "2048", "--n_threads", str(threads), "--n_threads_batch", str(threads))
    command = (sys.executable, "-m", "llama_cpp.server", "--model", str(file), "--host", HOST, "--port", "{port}")
    return (*command, *numbers, "--interrupt_requests", "False", *arguments)


def free_port() -> int:
    """One of loopback."""
    with socket.socket() as own:
        own.bind((HOST, 0))
        return int(own.getsockname()[1])


@contextmanager
def running(command: Sequence[str], model: str, port: str = "") -> Iterator[Server]:
    """Start a server, wait until it answers, and end it afterwards.

    :param port: where it listens if the command says that; else a free one is filled in.
    :raises RuntimeError: if it ends by itself, or takes too long; with the end of what it said.
    """
    port = port or str(free_port())
    with TemporaryFile() as log:
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        filled = [part.replace("{port}", port) for part in command]
        process = subprocess.Popen(filled, stdout=log, stderr=log, env=offline)
        try:
            address = f"http://{HOST}:{port}/v1"
            _wait(process, f"{address}/models", log)
            yield Server(address, model, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    log.seek(0)
    said = log.read().decode(errors="replace")[-2000:]
    raise RuntimeError(f"the server of {url} does not answer: {said}")
