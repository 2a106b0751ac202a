"""Prometheus metrics of a serving process, labelled with model and version. There is one worker per server, so the
multiprocess mode is not used.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the latency histogram, in seconds."""


class Metrics:
    """Metrics of one version."""

    def __init__(self, model: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = ("model", "version")
        self._values = (model, version)
        self._requests = Counter(
            "bentobelt_requests", "answered requests", (*self._labels, "endpoint", "code"), registry=self.registry
        )
        self.rows = self._counter("bentobelt_rows", "predicted rows")
        self.errors = self._counter("bentobelt_errors", "requests that the model or this service failed on (5xx)")
        self.labels = self._counter("bentobelt_labels", "labels that the bus confirmed")
        self.log_published = self._counter("bentobelt_log_published_rows", "predictions that the bus confirmed")
        self.log_dropped = self._counter("bentobelt_log_dropped_rows", "predictions that were never published")
        self.log_waiting = Gauge(
            "bentobelt_log_waiting_rows", "predictions that wait to be published", self._labels, registry=self.registry
        ).labels(*self._values)
        self.latency = Histogram(
            "bentobelt_latency_seconds", "of /predict", self._labels, buckets=BUCKETS, registry=self.registry
        ).labels(*self._values)

    def count_request(self, endpoint: str, code: int) -> None:
        """Count one answered request."""
        self._requests.labels(*self._values, endpoint, str(code)).inc()

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, self._labels, registry=self.registry).labels(*self._values)
