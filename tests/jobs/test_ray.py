"""Jobs on a Ray cluster of this machine.

Ray listens on every interface, so the cluster lives in a network name space of its own that has the loopback alone.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_plugins.errors import MissingExtraError
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job
from dllm_plugins.libraries.extras import has

PROGRAM = """
import fcntl, json, os, signal, socket, struct, sys, threading, time
# The loopback of a new name space is down.
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
import ray
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import DllmError
from dllm_plugins.jobs import JobOptions, run_job
from dllm_plugins.jobs.ray_worker import RayWorker

class Killed(RayWorker):
    def work(self, lines):
        # Once, and the cluster goes on.
        if lines and not os.path.exists(flag):
            open(flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(lines)

source, folder, load = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
ray.init(address="local", include_dashboard=False, num_cpus=3, log_to_driver=False, logging_level="ERROR")
options = JobOptions(load=load, config=SamplingConfig(max_new_tokens=7, draft_length=2))
for workers in (1, 3):
    run_job(source, f"{folder}/{workers}.jsonl", options, ray="local", workers=workers, together=2)
try:
    wrong = JobOptions(load=load | {"base": "/no/such/folder"}, config=options.config)
    run_job(source, f"{folder}/wrong.jsonl", wrong, ray="local", workers=1)
except DllmError as error:
    print(type(error).__name__)
from dllm_plugins.jobs import ray_pool
ray_pool.RayWorker = Killed
flag = f"{folder}/flag"
run_job(source, f"{folder}/killed.jsonl", options, ray="local", workers=2, together=2)
ray.shutdown()
"""


def _can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not has("ray"), reason="Ray is not installed: pip install 'dllm-plugins[ray]'")
@pytest.mark.skipif(not _can_unshare(), reason="no network name space can be made here, and Ray listens everywhere")
@pytest.mark.slow
def test_a_cluster_writes_the_same(source: Path, options: JobOptions, expected: bytes, tmp_path: Path) -> None:
    """With one worker and with three, and where one dies; what is wrong with a model is said as elsewhere."""
    arguments = [str(source), str(tmp_path), json.dumps(dict(options.load))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "-n", sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    # Ray itself tells of the worker that died.
    assert done.stdout.startswith("CheckpointError\n")
    for name in ("1", "3", "killed"):
        assert (tmp_path / f"{name}.jsonl").read_bytes() == expected, name
    assert (tmp_path / "flag").exists()


@pytest.mark.skipif(has("ray"), reason="Ray is installed")
def test_without_ray_it_is_named(source: Path, options: JobOptions, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"a job on Ray needs ray.*pip install 'dllm-plugins\[ray\]'"):
        run_job(source, tmp_path / "out.jsonl", options, ray="auto")
