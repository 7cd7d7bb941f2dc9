"""A replica: what `llm dllm serve` runs, reached through Ray."""

from collections.abc import AsyncGenerator
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import Message

from dllm_plugins.serving.ray.arguments import bounded
from dllm_plugins.serving.ray.carrying import Carried
from dllm_plugins.serving.ray.carrying import answered
from dllm_plugins.serving.settings import ServerSettings


class Server:
    """Ready once the first of its models is loaded; the others are loaded when they are asked for.

    :param settings: those that it was deployed with.
    """

    async def __init__(self, settings: ServerSettings) -> None:  # type: ignore[misc]
        # What describes the application needs none of it.
        from dllm_plugins.serving.app import create_app

        self._settings = settings
        # The ingress has seen to who may ask.
        self._app = create_app(settings, guarded=False)
        async with self._app.state.service.models.using(next(iter(settings.models))):
            pass

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Go by other bounds; called by Ray, while answers are under way.

        :param user_config: see :func:`~dllm_plugins.serving.ray.arguments.bounded`.
        :raises OptionError: for what is no bound.
        """
        self._app.state.service.bound(bounded(self._settings, user_config))

    async def answer(self, request: Carried) -> AsyncGenerator[list[Message], None]:
        """Messages of ASGI, as they come. Ray closes this when the client has left, which frees its rows."""
        async with aclosing(answered(self._app, request)) as found:
            async for messages in found:
                yield messages

    async def figures(self) -> tuple[str, str]:
        """The name of this replica, and its figures in Prometheus' format."""
        from ray import serve

        return serve.get_replica_context().replica_id.unique_id, self._app.state.service.metrics.text().decode()
