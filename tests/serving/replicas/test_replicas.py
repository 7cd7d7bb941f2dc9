"""Replicas on a cluster of this machine, in a network name space that has the loopback alone.

What is tested stands in modules that are run there, in one process after another of one cluster.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dllm_plugins.libraries.extras import has

HERE = Path(__file__).parent
#: Jobs first: their workers take what there is.
MODULES = (HERE.parents[1] / "jobs" / "on_ray.py", HERE / "on_ray.py")


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not has("ray"), reason="Ray is not installed: make ray, or pip install 'dllm-plugins[ray]'")
@pytest.mark.skipif(not _can_unshare(), reason="no network name space can be made here, and Ray listens everywhere")
@pytest.mark.slow
def test_on_a_cluster(tmp_path: Path) -> None:
    """Everything passes there."""
    # Ray leaves sockets and processes to the garbage collector.
    options = ["-x", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", f"--basetemp={tmp_path / 'own'}"]
    command = ["unshare", "-n", sys.executable, "-m", "pytest", *options, *map(str, MODULES)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Workers give way to everything else otherwise, and never come to load a model on a busy machine.
        "RAY_worker_niceness": "0",
        "HF_HUB_OFFLINE": "1",
        "DLLM_API_KEY": "sk-of-the-replicas",
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[2], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
