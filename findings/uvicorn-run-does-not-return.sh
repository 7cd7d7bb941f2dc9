#!/usr/bin/env bash
# uvicorn 0.54.0: a server that SIGTERM stops shuts down gracefully, lifespan included, and then raises the signal again
# with the default handler in its place: the process is gone, and neither `finally` nor `with` around `Server.run()` is
# run. What must be tidied up (a socket file, a lock) has to be tidied up by the lifespan.
# Guessed: a graceful shutdown returns from `run()`, as it does for `should_exit`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uvicorn==0.54.0
cat >"$work/serve.py" <<'PYTHON'
import os
import signal
import threading

import uvicorn


async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.startup":
            threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        else:
            print("lifespan: shut down", flush=True)
            return


try:
    uvicorn.Server(uvicorn.Config(app, port=0, log_level="error")).run()
finally:
    print("finally: reached", flush=True)
PYTHON
code=0
"$work/venv/bin/python" "$work/serve.py" >"$work/said" || code=$?
cat "$work/said"
echo "exit code $code"
grep --quiet "lifespan: shut down" "$work/said"
! grep --quiet "finally: reached" "$work/said"
[[ $code == 143 ]]
