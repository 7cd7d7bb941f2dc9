#!/usr/bin/env bash
# Ray Serve 2.60.0: a request router of one's own, written as RequestRouter documents it, is asked again without a pause
# while every replica is full: about a thousand times a second, with as many questions to replicas about their queues.
# The growing pause that RequestRouterConfig has (initial_backoff_s and so on) is made only where
# `pending_request.routing_context.should_backoff` was set, which the mixins of Ray's own routers do on the way; neither
# RequestRouter nor choose_replicas says so.
# Guessed: the pause is made for every router.
set -euo pipefail
# Ray listens on every interface: it runs in a network name space that has the loopback alone.
[[ ${1-} == inside ]] || {
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray[serve]==2.60.0"
  WORK=$work unshare -n "$0" inside
  exit
}
cat >"$WORK/own.py" <<'PYTHON'
from ray.serve.request_router import RequestRouter


class Own(RequestRouter):
    def initialize_state(self, pause):
        self.pause, self.asked = pause, 0

    async def choose_replicas(self, candidate_replicas, pending_request=None):
        self.asked += 1
        print("asked", self.pause, self.asked, flush=True)
        if self.pause:
            pending_request.routing_context.should_backoff = True
        return [candidate_replicas]
PYTHON
cat >"$WORK/main.py" <<'PYTHON'
import asyncio
import fcntl
import socket
import struct
import time

# The loopback of a new name space is down.
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig


class Busy:
    async def __call__(self):
        await asyncio.sleep(3)


ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)
for pause in (False, True):
    router = RequestRouterConfig(request_router_class="own:Own", request_router_kwargs={"pause": pause})
    busy = serve.deployment(Busy).options(max_ongoing_requests=1, request_router_config=router)
    handle = serve.run(busy.bind(), name=f"pause-{pause}", route_prefix=None)
    waiting = [handle.remote() for _ in range(2)]
    for one in waiting:
        one.result()
PYTHON
cd "$WORK"
PYTHONPATH=$WORK RAY_USAGE_STATS_ENABLED=0 setsid --wait "$WORK/venv/bin/python" main.py >said 2>log || { cat log; exit 1; }
without=$(grep --count "^asked False" said) with=$(grep --count "^asked True" said)
echo "asked while the replica was full for three seconds: $without times, with should_backoff $with times"
((without > 100 && with < 100))
