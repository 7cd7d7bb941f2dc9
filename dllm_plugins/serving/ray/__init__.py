"""The server on a Ray cluster: any number of replicas behind one address.

`serve run dllm_plugins.serving.ray:app`, or a config file that names this application.
"""

from typing import Any

from dllm_plugins.libraries.extras import need
from dllm_plugins.serving.ray.arguments import placing_of
from dllm_plugins.serving.ray.arguments import settings_of

#: Requests that a replica of the ingress carries; what is more waits in Ray's proxy.
_CARRIED = 4096
#: Seconds after which a client that was turned away may ask again.
_AGAIN = 5


def app(given: dict[str, Any]) -> Any:
    """The application, as Ray Serve builds it; an `Application` of its.

    :param given: see :func:`~dllm_plugins.serving.ray.arguments.settings_of` and
        :func:`~dllm_plugins.serving.ray.arguments.placing_of`.
    :raises MissingExtraError: without Ray Serve.
    :raises OptionError: for an argument that there is not, or a value out of range.
    """
    serve = need("ray.serve", "a server on a cluster")
    from dllm_plugins.serving.ray.ingress import Ingress
    from dllm_plugins.serving.ray.server import Server

    placing, settings = placing_of(given), settings_of(given)
    servers = serve.deployment(Server).options(
        num_replicas=placing.replicas,
        ray_actor_options={"num_cpus": placing.cpus, "num_gpus": placing.gpus},
        # As many again wait with each replica, so that a place that is free is taken at once. The others wait where
        # they can still go to any replica.
        max_ongoing_requests=2 * settings.rows,
        max_queued_requests=settings.waiting,
        backpressure_config={"status_code": 429, "retry_after_s": _AGAIN},
        graceful_shutdown_timeout_s=settings.grace,
        request_router_config={"request_router_class": "dllm_plugins.serving.ray.router:PrefixRouter"},
    )
    ingress = serve.deployment(serve.ingress()(Ingress)).options(
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_CARRIED,
        # It outlives the replicas whose answers it carries.
        graceful_shutdown_timeout_s=2 * settings.grace,
    )
    return ingress.bind(servers.bind(settings), settings, placing.access)
