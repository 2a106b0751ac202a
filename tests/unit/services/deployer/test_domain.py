"""Decisions of the deployer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.features import Probe
from services.deployer.domain import (
    PredictionsDiffer,
    StoredImage,
    already_applied,
    cannot_roll_back,
    check_predictions,
    crash_loop,
    decide,
    images_to_prune,
    newest_live,
    predates_target,
    released,
    restart_pause,
    rollback_target,
    rolled_back,
    same,
    superseded_elsewhere,
    versions_to_run,
)
from services.storage.registry import Live

V1, V2, V3 = "1-aaaaaaaa", "2-bbbbbbbb", "3-cccccccc"


def live(version: str, order: int, previous: str | None = None, retired: tuple[str, ...] = ()) -> Live:
    return Live(
        model="digits", version=version, image="i", url="u", target="local", order=order, run="r", since=0.0,
        previous=previous, retired=retired,
    )  # fmt: skip


def test_the_first_version_is_deployed() -> None:
    assert decide(None, V1, 1) == "deploy"


@pytest.mark.parametrize(
    ("version", "order", "expected"),
    [(V3, 7, "deploy"), (V2, 7, "deploy"), (V1, 4, "superseded"), (V2, 5, "already"), (V2, 4, "already")],
)
def test_live_follows_what_was_decided_last(version: str, order: int, expected: str) -> None:
    assert decide(live(V2, 5), version, order) == expected


@given(st.permutations([(V1, 1), (V2, 2), (V3, 3), (V1, 4), ("9-dddddddd", 9)]), st.data())
def test_in_whatever_order_versions_arrive_the_last_decision_wins(
    arrivals: list[tuple[str, int]], data: st.DataObject
) -> None:
    now: Live | None = None
    for version, order in [*arrivals, data.draw(st.sampled_from(arrivals))]:
        if decide(now, version, order) == "deploy":
            now = released(now, live(version, order))
    assert now is not None
    assert (now.version, now.order) == ("9-dddddddd", 9)


def test_a_release_keeps_the_version_before_as_previous() -> None:
    assert released(live(V1, 1), live(V2, 2)).previous == V1


def test_a_release_of_the_same_version_keeps_its_previous() -> None:
    assert released(live(V2, 2, previous=V1), live(V2, 5)).previous == V1


def test_a_version_rolled_back_from_is_never_previous() -> None:
    back = rolled_back(live(V2, 2, previous=V1), live(V1, 5))
    assert (back.version, back.previous, back.retired) == (V1, None, (V2,))
    on = released(back, live(V3, 6))
    assert (on.previous, on.retired) == (V1, (V2,))
    assert rolled_back(on, live(V1, 7)).retired == (V2, V3)


def test_a_retired_version_approved_again_is_no_longer_retired() -> None:
    back = rolled_back(live(V2, 2, previous=V1), live(V1, 5))
    again = released(back, live(V2, 6))
    assert (again.previous, again.retired) == (V1, ())


def test_rolling_back_to_what_is_live_changes_the_order_only() -> None:
    back = rolled_back(live(V2, 2, previous=V1), live(V2, 5))
    assert (back.version, back.order, back.previous, back.retired) == (V2, 5, V1, ())


def test_the_rollback_goes_to_the_previous_or_the_named_version() -> None:
    now = live(V3, 3, previous=V2)
    assert rollback_target(now, None, 9) == V2
    assert rollback_target(now, V1, 9) == V1
    assert rollback_target(live(V3, 3), None, 9) is None
    assert rollback_target(None, V1, 9) is None


def test_a_rollback_delivered_again_leads_where_it_led() -> None:
    assert rollback_target(live(V1, 9, retired=(V2,)), None, 9) == V1


@pytest.mark.parametrize(
    ("now", "to", "says"),
    [
        (None, None, "not live"),
        (live(V2, 2), None, "no previous version"),
        (live(V2, 2, previous=V1), "7-eeeeeeee", "no version 7-eeeeeeee"),
    ],
)
def test_an_impossible_rollback_names_the_versions_there_are(now: Live | None, to: str | None, says: str) -> None:
    error = str(cannot_roll_back("digits", now, to, [V2, V1]))
    assert says in error
    assert f"{V1}, {V2}" in error


def test_what_was_decided_on_last_leads() -> None:
    other = live("9-eeeeeeee", 99).model_copy(update={"model": "other"})
    assert newest_live("digits", [live(V3, 3), live(V2, 40), live(V1, 1), other]) == live(V2, 40)
    assert newest_live("digits", [other]) is None


@pytest.mark.parametrize(
    ("version", "order", "instead"), [(V1, 1, V2), (V2, 2, None), (V3, 3, V2), ("50-dddddddd", 50, None)]
)
def test_a_new_target_passes_over_all_but_what_leads_and_what_is_newer(
    version: str, order: int, instead: str | None
) -> None:
    assert superseded_elsewhere(version, order, live(V2, 40)) == instead
    assert superseded_elsewhere(version, order, None) is None


@pytest.mark.parametrize(
    ("here", "elsewhere", "order", "asked", "expected"),
    [
        (None, live(V2, 40), 40, 0.0, True), (None, None, 40, 0.0, False),
        (live(V2, 40), live(V2, 40), 30, 1.0, True), (live(V2, 2), live(V2, 2), 30, -1.0, True),
        (live(V2, 2), live(V2, 2), 30, 1.0, False), (live(V2, 2, previous=V1), live(V2, 2), 30, -1.0, False),
    ],
)  # fmt: skip
def test_a_rollback_of_a_time_before_a_targets_own_is_bygone(
    here: Live | None, elsewhere: Live | None, order: int, asked: float, expected: bool
) -> None:
    assert predates_target(here, elsewhere, order, asked) is expected


def test_a_bygone_rollback_leads_where_it_led_elsewhere_and_one_before_it_nowhere() -> None:
    leader = live(V2, 40, retired=(V3,))
    assert already_applied(leader, 40) == leader
    assert [already_applied(leader, 20), already_applied(leader, 50), already_applied(None, 40)] == [None, None, None]


@given(st.permutations([(V1, 1), (V2, 2), (V3, 3)]), st.data())
def test_in_whatever_order_a_new_target_reads_the_past_it_starts_only_what_leads(
    arrivals: list[tuple[str, int]], data: st.DataObject
) -> None:
    leader, started = live(V2, 40, retired=(V3,)), []
    now: Live | None = None
    for version, order in [*arrivals, *data.draw(st.permutations(arrivals))]:
        if now is None and superseded_elsewhere(version, order, leader):
            continue
        decided = max(order, leader.order) if now is None else order
        if decide(now, version, decided) == "deploy":
            now = released(now, live(version, decided))
            started.append(version)
    assert started == [V2]
    assert now is not None
    assert (now.version, now.order, now.previous) == (V2, 40, None)


def test_live_and_previous_are_wanted() -> None:
    assert versions_to_run(None) == frozenset()
    assert versions_to_run(live(V2, 2, previous=V1)) == {V1, V2}


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        (3, 3, True), (3, 4, False), ("a", "a", True), ("1", 1, False), (True, True, True), (True, 1, False),
        (0.1 + 0.2, 0.3, True), (152.3, 152.30000001, True), (1.0, 1.001, False), (1, 1.0, True), (None, None, True),
    ],
)  # fmt: skip
def test_predictions_are_compared_as_values(expected: object, got: object, equal: bool) -> None:
    assert same(expected, got) is equal  # type: ignore[arg-type]


def test_a_prediction_that_differs_is_named_with_its_row() -> None:
    probe = Probe(rows=({"x": 1.0}, {"x": 2.0}), predictions=(0, 1))
    check_predictions(probe, (0, 1))
    with pytest.raises(PredictionsDiffer, match=r"'x': 2.0.*1.*0"):
        check_predictions(probe, (0, 0))
    with pytest.raises(PredictionsDiffer, match="2 rows were sent, 1 predictions"):
        check_predictions(probe, (0,))


def test_a_crash_loop_backs_off() -> None:
    pauses = [restart_pause(n) for n in range(12)]
    assert pauses[:2] == [0.0, 0.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0


def test_a_crash_loop_says_what_to_do() -> None:
    failed = crash_loop(live(V2, 2), 5, "ImportError: no")
    assert (failed.version, failed.target, failed.attempts) == (V2, "local", 5)
    assert "belt rollback digits" in failed.message
    assert failed.message.endswith("ImportError: no")


def stored(number: int, *, tagged: bool = False) -> StoredImage:
    return StoredImage(id=f"id{number}", version=f"{number}-aaaaaaaa", names=(f"r/m@{number}",), tagged=tagged)


def test_all_but_the_newest_idle_images_are_unneeded() -> None:
    images = [stored(number) for number in (9, 10, 2, 1, 11)]
    assert images_to_prune(images, frozenset(), frozenset(), 3) == ["r/m@2", "r/m@1"]


def test_images_that_anybody_uses_holds_or_named_are_needed() -> None:
    images = [stored(1), stored(2, tagged=True), stored(3), stored(4)]
    assert images_to_prune(images, frozenset({"id1"}), frozenset({"r/m@3"}), 0) == ["r/m@4"]


def test_images_of_other_repositories_do_not_count_among_the_newest() -> None:
    images = [StoredImage(id="x", version="9-aaaaaaaa", names=(), tagged=False), stored(2), stored(1)]
    assert images_to_prune(images, frozenset(), frozenset(), 1) == ["r/m@1"]
