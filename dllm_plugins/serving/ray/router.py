"""Requests go where their conversation was before; see :mod:`dllm_plugins.serving.ray.conversation`.

Ray's own PrefixCacheAffinityRouter needs what its extra `llm` installs, asks an actor for every request, and remembers
every text; its ConsistentHashRouter leaves a replica only when that takes no more.
"""

from typing import Any

from ray.serve.request_router import PendingRequest
from ray.serve.request_router import RequestRouter
from ray.serve.request_router import RunningReplica

from dllm_plugins.serving.ray.conversation import ranked

#: Eight more rows in company cost a row less than reading its prefix again (docs/scale.md).
_LEAD = 8


class PrefixRouter(RequestRouter):  # type: ignore[misc]
    """Ranks replicas for a request that carries its conversation; in `request_router_kwargs` it takes `lead`."""

    def initialize_state(self, lead: int = _LEAD) -> None:
        """Called by Ray.

        :param lead: see :func:`~dllm_plugins.serving.ray.conversation.ranked`.
        """
        self._lead = lead

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replicas, one a rank, best first."""
        if pending_request is None:
            return [candidate_replicas]
        # Else Ray asks again without a pause while all replicas are full.
        pending_request.routing_context.should_backoff = True
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        lengths = self.replica_queue_len_cache
        queues = {name: lengths.get(replica.replica_id) or 0 for name, replica in replicas.items()}
        key = _conversation(pending_request) or pending_request.metadata.internal_request_id
        return [[replicas[name]] for name in ranked(key, queues, self._lead)]


def _conversation(request: Any) -> str:
    return getattr(request.args[0], "conversation", "") if request.args else ""
