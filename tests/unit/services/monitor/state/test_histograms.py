"""Rows counted into the bins of a profile."""

from contracts.profiles import ColumnProfile, Profile
from services.monitor.state.histograms import Bins


def test_bins_count_what_the_profile_counted() -> None:
    columns = (
        ColumnProfile(name="n", edges=(1.0, 2.0), counts=(1, 1, 1), missing=1),
        ColumnProfile(name="c", categories=("a", "True"), counts=(2, 1), other=1),
    )
    bins = Bins(Profile(rows=4, columns=columns, prediction=ColumnProfile(name="p", categories=("3.0",), counts=(4,))))
    counted = bins.count({"n": [1.0, 2, None, "text"], "c": ["a", True, None, "new"]}, [3, 3.0, "3", 4])
    # Cells: missing, odd, bins or categories, other.
    assert counted.tolist() == [[1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [0, 0, 3, 1, 0]]
    assert bins.reference.tolist() == [[1, 0, 1, 1, 1], [0, 0, 2, 1, 1], [0, 0, 4, 0, 0]]
    assert bins.count({"c": ["a", "new"]}, [3, 3]).tolist()[:2] == [[2, 0, 0, 0, 0], [0, 0, 1, 0, 1]]
