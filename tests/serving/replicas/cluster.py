"""A cluster in a network name space of its own, and the application on it.

Ray listens on every interface, so only processes that `unshare -n` has started come here.
"""

import fcntl
import json
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import ray
from click.testing import CliRunner
from ray import serve
from ray.serve.scripts import cli

ADDRESS = "http://127.0.0.1:8000"
KEY = "sk-of-the-replicas"
#: Seconds that anything here may take; it is the machine that is slow.
PATIENCE = 120


def start() -> None:
    """Be on a cluster; a second call changes nothing."""
    if ray.is_initialized():
        return
    # The loopback of a new name space is down.
    fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
    # Classes of tests are in no module that workers could import.
    for name in [name for name in sys.modules if name.startswith("tests.")]:
        if hasattr(sys.modules[name], "__file__"):
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
    # Devices are what Ray is told that they are.
    resources = {"num_cpus": 4, "num_gpus": 2}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", **resources)


def until(what: Callable[[], Any]) -> Any:
    """The first result that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, f"{what} has not come true"
        time.sleep(0.05)
    return found


def deploy(folder: Path, args: dict[str, Any], server: dict[str, Any]) -> None:
    """Run a config file as `serve run` does, without waiting until it is at work.

    :param server: what it says of the deployment `Server`.
    """
    quick = {"graceful_shutdown_wait_loop_s": 0.1}
    router = {"request_router_class": "dllm_plugins.serving.ray.router:PrefixRouter"}
    own = {
        "ray_actor_options": {"num_gpus": 1},
        "request_router_config": router | {"request_router_kwargs": {"lead": 9}},
    }
    application = {
        "name": "dllm",
        "import_path": "dllm_plugins.serving.ray:app",
        "args": args,
        "deployments": [{"name": "Server", **quick, **own, **server}, {"name": "Ingress", **quick}],
    }
    config = {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1"}, "applications": [application]}
    file = folder / "config.yaml"
    file.write_text(json.dumps(config))
    result = CliRunner().invoke(cli, ["run", "--non-blocking", str(file)])
    assert result.exit_code == 0, result.output


def running() -> Any:
    """Whether the last deployment is at work.

    :raises AssertionError: if it has failed.
    """
    found = serve.status().applications["dllm"]
    assert found.status not in ("DEPLOY_FAILED", "UNHEALTHY"), found
    return found.status == "RUNNING"


def servers() -> set[str]:
    """Names of the replicas that answer, or are about to."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return {one["name"].rpartition("#")[2] for one in found if "#Server#" in one["name"]}


def free_devices() -> float:
    """How many devices nobody has."""
    return float(ray.available_resources().get("GPU", 0))


def kill(name: str) -> None:
    """Kill a replica, as the machine does that runs out of memory."""
    ray.kill(ray.get_actor(f"SERVE_REPLICA::dllm#Server#{name}", namespace="serve"))


def client() -> httpx.Client:
    """One with the key."""
    return httpx.Client(base_url=ADDRESS, timeout=PATIENCE, headers={"Authorization": f"Bearer {KEY}"})


def figure(asked: httpx.Client, name: str) -> dict[str, float]:
    """A figure of each replica that tells it, over all its other labels."""
    found = dict[str, float]()
    for line in asked.get("/metrics").text.splitlines():
        if line.startswith(f"{name}{{"):
            replica = re.findall('replica="(.*?)"', line)[0]
            found[replica] = found.get(replica, 0) + float(line.rpartition(" ")[2])
    return found
