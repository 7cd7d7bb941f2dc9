"""What all requests reach first: it checks who asks, and has a replica answer.

Ray's proxy routes by what stands in the head of a request; which conversation one belongs to stands in its body. So
bodies are read here, once, and are carried on with what was found in them. This needs neither a model nor a device.
"""

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.routing import Route
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from dllm_plugins.serving.guard import Guard
from dllm_plugins.serving.guard import with_keys
from dllm_plugins.serving.ray.arguments import Access
from dllm_plugins.serving.ray.carrying import carried
from dllm_plugins.serving.ray.conversation import conversation_of
from dllm_plugins.serving.ray.figures import MEDIA_TYPE
from dllm_plugins.serving.ray.figures import together
from dllm_plugins.serving.ray.relay import Relay
from dllm_plugins.serving.sending import ClientLeftError
from dllm_plugins.serving.sending import Json
from dllm_plugins.serving.sending import unless_left
from dllm_plugins.serving.settings import ServerSettings

#: Seconds that replicas have to tell their figures.
_PATIENCE = 5


class Ingress:
    """An application whose questions are answered elsewhere.

    :param servers: a handle to the replicas.
    :param settings: those of the replicas, too.
    :param access: who may ask.
    :raises OptionError: for a host that others reach without a key, or a file without keys.
    """

    def __init__(self, servers: Any, settings: ServerSettings, access: Access) -> None:
        guarded = with_keys(settings, access.api_key_file, access.without_key)
        self._servers = servers
        self._answer = servers.answer.options(stream=True)
        self._guard = Middleware(Guard, settings=guarded)

    def __serve_build_asgi_app__(self) -> Starlette:
        """Called by Ray, which serves it."""
        routes = [Route("/health", self._health), Route("/metrics", self._figures), Mount("/", self._forward)]
        return Starlette(routes=routes, middleware=[self._guard])

    async def _health(self, _request: Request) -> Response:
        """Requests are taken, even while there is no replica."""
        return Json({"status": "ok"})

    async def _figures(self, _request: Request) -> Response:
        """Figures of all replicas that tell them."""
        told = await self._servers.broadcast("figures").results_async(timeout_s=_PATIENCE, return_exceptions=True)
        known = [one for one in told if not isinstance(one, BaseException)]
        return Response(together(known), media_type=MEDIA_TYPE)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The guard has read it, and tells it in one piece.
        first = await receive()
        if first["type"] != "http.request":
            return
        body = first["body"]
        response = self._answer.remote(carried(scope, body, conversation_of(body)))
        try:
            await unless_left(receive, Relay(scope, receive, send).all(response))
        except (ClientLeftError, OSError):
            # Newer servers raise an OSError where one sends to nobody.
            return
        finally:
            response.cancel()
