"""Prometheus metrics of a serving process, labelled with model and version. One worker, so no multiprocess mode."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The counters, bound to one version."""

    def __init__(self, model: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self._by = ("model", "version")
        self._version = (model, version)
        self._requests = Counter(
            "bentobelt_requests", "answered requests", (*self._by, "endpoint", "code"), registry=self.registry
        )
        self._bound: dict[tuple[str, int], Counter] = {}
        self.rows = self._counter("bentobelt_rows", "predicted rows")
        self.errors = self._counter("bentobelt_errors", "requests the model or this service failed (5xx)")
        self.labels = self._counter("bentobelt_labels", "labels taken by the bus")
        self.log_published = self._counter("bentobelt_log_published_rows", "predictions the bus has")
        self.log_dropped = self._counter("bentobelt_log_dropped_rows", "predictions that never reached the bus")
        self.log_waiting = Gauge(
            "bentobelt_log_waiting_rows", "predictions not on the bus yet", self._by, registry=self.registry
        ).labels(*self._version)
        self.latency = Histogram(
            "bentobelt_latency_seconds", "of /predict", self._by, buckets=BUCKETS, registry=self.registry
        ).labels(*self._version)

    def answered(self, endpoint: str, code: int) -> None:
        """Count one request."""
        bound = self._bound.get((endpoint, code))
        if bound is None:
            bound = self._bound[endpoint, code] = self._requests.labels(*self._version, endpoint, str(code))
        bound.inc()

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(name, what, self._by, registry=self.registry).labels(*self._version)
