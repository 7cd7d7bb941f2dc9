"""A job is begun, or found again where it was."""

import json
from array import array
from contextlib import suppress
from dataclasses import astuple
from hashlib import sha256
from pathlib import Path

import numpy as np

from dllm_plugins.errors import JobError
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.jobs.folder import JobFolder
from dllm_plugins.jobs.folder import check_folder
from dllm_plugins.jobs.folder import firsts_of
from dllm_plugins.jobs.folder import folder_of
from dllm_plugins.jobs.folder import id_of
from dllm_plugins.jobs.folder import remove
from dllm_plugins.jobs.folder import state_of
from dllm_plugins.jobs.journal import full
from dllm_plugins.jobs.journal import sync_folder
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.source import Shard
from dllm_plugins.jobs.source import Source
from dllm_plugins.jobs.source import digest
from dllm_plugins.jobs.source import scan
from dllm_plugins.jobs.stated import compare
from dllm_plugins.jobs.stated import damaged
from dllm_plugins.jobs.stated import read
from dllm_plugins.jobs.stated import write


def open_job(source: Path, target: Path, options: JobOptions) -> JobFolder:
    """The job of these files and options; its output is there already if it is `finished`.

    Any number of processes may do so at once.

    :raises JobError: if the input cannot be read, if the job was begun with another input or other options, or if the
        output's place is taken.
    """
    _check(source, target)
    told = {"input": digest(source)} | options.told()
    key = sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    folder = folder_of(target)
    try:
        with alone(target):
            shards = _taken(source, target, key) if target.exists() else None
            if shards is None and not state_of(folder).exists():
                shards = _begin(source, folder, told)
            elif shards is None:
                shards = _resumed(source, folder, told)
    except OSError as error:
        raise full(folder, error) from error
    return JobFolder(Source(source, told["input"], shards), target, key)


def _check(source: Path, target: Path) -> None:
    if target.is_dir() or not target.parent.is_dir():
        what = "is a folder" if target.is_dir() else f"is in {target.parent}, which is no folder"
        raise JobError(f"the output {target} {what}; name a file in a folder that is there")
    with suppress(OSError):
        if source.samefile(target):
            raise JobError(f"{source} is named both as input and as output; name another output")


def _resumed(source: Path, folder: Path, told: dict[str, str]) -> tuple[Shard, ...]:
    state = read(state_of(folder))
    try:
        begun, shards = dict(state["told"]), tuple(Shard(*shard) for shard in state["shards"])
        firsts = state["firsts"]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(state_of(folder), "it is not what a job writes") from error
    compare(begun, told, folder)
    place = firsts_of(folder)
    if firsts != (digest(place) if place.exists() else None):
        # The input is what it was, so that it follows from it.
        _keep_firsts(folder, scan(source)[1])
    return shards


def _begin(source: Path, folder: Path, told: dict[str, str]) -> tuple[Shard, ...]:
    check_folder(folder)
    remove(folder)
    folder.mkdir()
    shards, names = scan(source)
    firsts = _keep_firsts(folder, names)
    write(state_of(folder), {"told": told, "shards": [astuple(shard) for shard in shards], "firsts": firsts})
    sync_folder(folder)
    sync_folder(folder.parent)
    return shards


def _keep_firsts(folder: Path, names: "array[int]") -> str | None:
    """Write it down if a name comes twice; its sha256."""
    firsts, place = _firsts(names), firsts_of(folder)
    if firsts is None:
        return None
    with whole(place) as part, part.open("wb") as file:
        np.save(file, firsts)
    return digest(place)


def _firsts(names: "array[int]") -> "np.ndarray[tuple[int], np.dtype[np.int64]] | None":
    """For each row the first of its name; None where no name comes twice."""
    _, firsts, own = np.unique(np.array(names, np.uint64), return_index=True, return_inverse=True)
    return None if len(firsts) == len(names) else firsts[own].astype(np.int64)


def _taken(source: Path, target: Path, key: str) -> tuple[Shard, ...]:
    """The shards of a job whose output is there; what is left of its folder goes.

    :raises JobError: if what is there is something else.
    """
    shards, names = scan(source)
    ids = []
    with target.open("rb") as file:
        rows, last = 0, b""
        for last in file:
            rows += 1
            ids += [_id(last)] if rows == 1 else []
        ids += [_id(last)] if rows else []
    expected = [f"batch_req_{id_of(key, place)}" for place in (0, len(names) - 1)] if len(names) else []
    if rows != len(names) or ids != expected:
        raise JobError(
            f"{target} is there already, and is not what this job writes; name another output, or move it away"
        )
    remove(folder_of(target))
    return shards


def _id(line: bytes) -> object:
    with suppress(ValueError, AttributeError, RecursionError):
        return json.loads(line).get("id")
    return None
