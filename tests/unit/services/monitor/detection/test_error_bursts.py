"""Bursts of serving errors."""

from services.monitor.detection.error_bursts import VERSIONS, Burst, ErrorBursts


def test_a_burst_is_reported_once_and_old_errors_do_not_count() -> None:
    bursts = ErrorBursts(3)
    assert bursts.add("m", "v", 0.0, 2) is None
    assert bursts.add("m", "v", 100.0) is None
    assert bursts.add("m", "w", 100.0, 2) is None
    assert bursts.add("m", "v", 110.0, 2) == Burst("v", 3, 100.0, 110.0)
    assert bursts.add("m", "v", 111.0) is None


def test_errors_of_versions_without_recent_errors_are_dropped() -> None:
    bursts = ErrorBursts(3)
    for generation in range(10 * VERSIONS):
        assert bursts.add("m", f"{generation}-0123abcd", 100.0, 2) is None
        assert (bursts.add("m", "live", 100.0) is not None) == (generation % 3 == 2)
    assert len(bursts._lines) == VERSIONS
