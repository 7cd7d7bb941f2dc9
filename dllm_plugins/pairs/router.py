"""The router of a pair: rules may choose the other model, whose speed is not compared with anything."""

from dataclasses import replace

from dllm_plugins.request import Request
from dllm_plugins.routing.router import Route
from dllm_plugins.routing.router import Router


class PairRouter(Router):
    """See :class:`~dllm_plugins.routing.router.Router`; a route says which model answers."""

    def explain(self, request: Request, rows: int) -> Route:
        """See :meth:`Router.explain`."""
        return self._with_model(super().explain(request, rows))

    def choose(self, request: Request, rows: int) -> Route:
        """See :meth:`Router.choose`."""
        return self._with_model(super().choose(request, rows))

    def _with_model(self, route: Route) -> Route:
        spec = self._denoiser.spec
        other = spec.others.get(route.mode)
        return replace(route, why=f"{route.why}; {spec.target if other is None else other.name} answers")
