"""Figures of all replicas as those of one server, each with a label that says whose it is."""

from collections.abc import Iterator
from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

#: What the format is called.
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Read(Collector):
    def __init__(self, told: Sequence[tuple[str, str]]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """Every family once, with the samples of all."""
        found = dict[str, Metric]()
        for replica, text in self._told:
            for family in text_string_to_metric_families(text):
                same = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                same.samples += [
                    sample._replace(labels=sample.labels | {"replica": replica}) for sample in family.samples
                ]
        return iter(found.values())


def together(told: Sequence[tuple[str, str]]) -> bytes:
    """Figures in Prometheus' format.

    :param told: names of replicas, and the figures of each.
    """
    registry = CollectorRegistry()
    registry.register(_Read(told))
    return generate_latest(registry)
