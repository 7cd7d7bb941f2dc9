"""Figures for Prometheus: requests, tokens, passes, the queue, and how long the first text takes."""

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import generate_latest

from dllm_plugins.events import Usage

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS_PER_PASS = (0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 32)


class Metrics:
    """Of one server; each has a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self._requests = Counter("dllm_requests", "Requests answered.", ["endpoint", "model", "status"], registry=own)
        self._refused = Counter("dllm_refused", "Requests turned away by a full queue.", ["model"], registry=own)
        self._left = Counter("dllm_left", "Requests whose client left early.", ["model"], registry=own)
        self._tokens = Counter("dllm_tokens", "Tokens: prompt, cached of it, answer.", ["model", "kind"], registry=own)
        self._passes = Counter("dllm_passes", "Passes that rows took part in.", ["model", "kind"], registry=own)
        self._yield = Histogram(
            "dllm_tokens_per_pass", "Tokens a pass of each answer.", ["model"], buckets=_TOKENS_PER_PASS, registry=own
        )
        self._waiting = Gauge("dllm_waiting", "Answers that wait for their turn.", ["model"], registry=own)
        self._working = Gauge("dllm_working", "Answers being written.", ["model"], registry=own)
        self._loaded = Gauge("dllm_loaded_bytes", "Memory of a loaded model's weights.", ["model"], registry=own)
        self._first = Histogram(
            "dllm_first_text_seconds", "From request to first text.", ["model"], buckets=_SECONDS, registry=own
        )
        self._whole = Histogram(
            "dllm_request_seconds", "From request to the end.", ["model"], buckets=_SECONDS, registry=own
        )

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return generate_latest(self._registry)

    def answered(self, endpoint: str, model: str, status: int) -> None:
        """A request was answered, by an error or otherwise.

        :param model: one that is served; "" where the request names none of them.
        """
        self._requests.labels(endpoint, model, status).inc()

    def refused(self, model: str) -> None:
        """The queue was full."""
        self._refused.labels(model).inc()

    def left(self, model: str) -> None:
        """A client did not wait for the end."""
        self._left.labels(model).inc()

    def queue(self, model: str, waiting: int, working: int) -> None:
        """How many answers there are."""
        self._waiting.labels(model).set(waiting)
        self._working.labels(model).set(working)

    def loaded(self, model: str, size: int) -> None:
        """A model takes so many bytes now; 0 if it was dropped."""
        self._loaded.labels(model).set(size)

    def first_text(self, model: str, seconds: float) -> None:
        """The first text of a request went out."""
        self._first.labels(model).observe(seconds)

    def whole(self, model: str, seconds: float) -> None:
        """A request is done."""
        self._whole.labels(model).observe(seconds)

    def finished(self, model: str, usage: Usage) -> None:
        """An answer has ended."""
        kinds = {"prompt": usage.prompt_tokens, "cached": usage.cached_tokens, "answer": usage.useful_tokens}
        for kind, count in kinds.items():
            self._tokens.labels(model, kind).inc(count)
        for kind, count in usage.passes.items():
            self._passes.labels(model, kind).inc(count)
        self._yield.labels(model).observe(usage.tokens_per_forward)
