"""`belt predict` and `belt feedback` against a gateway of the test's own."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from belt import gateway_client
from belt.main import app

INFO = {
    "features": [{"name": "x", "type": "number"}],
    "target": {"name": "y", "type": "integer"},
    "classes": [*range(8), "eight"],
}
WRONG = {"error": "label 1: 'label' must be a whole number (y)", "details": [{"label": n} for n in range(5)]}
runner = CliRunner()


class Gateway(ThreadingHTTPServer):
    """Answers predictions for rows of one feature, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[Any] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        self.answer(200, INFO)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        if self.path == "/digits/feedback" and "late" in [one["label"] for one in body["labels"]]:
            self.answer(422, WRONG)
        elif self.path == "/digits/feedback":
            self.answer(200, {"accepted": len(body["labels"])})
        elif self.path == "/digits/predict" and all(row.keys() == {"x"} for row in body["rows"]):
            told = [
                {"id": f"digits.7-aaaaaaaa.{n}", "prediction": 3, "probabilities": [0.25, 0.75]}
                for n, _ in enumerate(body["rows"])
            ]
            self.answer(200, {"model": "digits", "version": "7-aaaaaaaa", "predictions": told})
        elif self.path == "/revived/predict":
            self.answer(503, "no available server")
        elif self.path == "/diabetes/predict":
            told = [{"id": f"diabetes.7-aaaaaaaa.{n}", "prediction": 152.1334841628967} for n in body["rows"]]
            self.answer(200, {"model": "diabetes", "version": "7-aaaaaaaa", "predictions": told})
        else:
            self.answer(422, {"error": "rows.0: unknown feature 'colour'"})

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def belt(gateway: Gateway, *arguments: str, stdin: str | None = None) -> Any:
    return runner.invoke(app, list(arguments), env={"BELT_GATEWAY": gateway.url + "/"}, input=stdin)


def test_inline_rows_are_predicted(gateway: Gateway) -> None:
    done = belt(gateway, "predict", "digits", '[{"x": 1}]', "--json")
    assert json.loads(done.stdout)["predictions"][0]["prediction"] == 3
    assert gateway.asked == [{"rows": [{"x": 1}]}]


def test_predictions_are_a_table_with_their_ids(gateway: Gateway) -> None:
    done = belt(gateway, "predict", "digits", "-", stdin='{"x": 1}')
    assert "digits.7-aaaaaaaa.0" in done.stdout
    assert "0.250, 0.750" in done.stdout
    assert "7-aaaaaaaa" in done.stderr


def test_columns_of_a_file_that_are_no_features_are_left_out(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n0.5,1\n")
    done = belt(gateway, "predict", "digits", str(tmp_path / "rows.csv"), "--json")
    assert done.exit_code == 0
    assert gateway.asked == [{"rows": [{"x": 0.5}]}]
    assert "left out, because they are not features: y" in done.stderr


def test_what_the_server_refuses_is_shown_in_words_and_with_json_as_it_says_it(gateway: Gateway) -> None:
    done = belt(gateway, "predict", "digits", '[{"colour": 1}]', "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert 'answered 422: {"error": "rows.0: unknown feature \'colour\'"}' in done.stderr
    assert (
        "answered 422: rows.0: unknown feature 'colour'\n"
        in belt(gateway, "predict", "digits", '[{"colour": 1}]').stderr
    )


def test_a_model_that_is_being_started_is_worth_another_try(gateway: Gateway) -> None:
    done = belt(gateway, "predict", "revived", '[{"x": 1}]')
    assert "answered 503: " in done.stderr
    assert "; try again in some seconds if it has just been started; else run `belt doctor`\n" in done.stderr


def test_an_error_says_how_much_more_is_wrong_and_cuts_long_lists() -> None:
    assert gateway_client.short_error(json.dumps(WRONG)) == "label 1: 'label' must be a whole number (y); and 2 more"
    many = ", ".join(f"pixel_{n}" for n in range(65))
    short = gateway_client.short_error(json.dumps({"error": f"row 0 lacks {many}"}))
    assert short == "row 0 lacks pixel_0, pixel_1, pixel_2, pixel_3, pixel_4, … 60 more"
    assert gateway_client.short_error("<html>\n") == "<html>"


def test_a_long_file_is_asked_in_batches_and_answered_as_one(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x\n" + "1\n" * 1201)
    done = belt(gateway, "predict", "digits", str(tmp_path / "rows.csv"), "--json")
    assert [len(asked["rows"]) for asked in gateway.asked] == [500, 500, 201]
    assert len(json.loads(done.stdout)["predictions"]) == 1201


def test_the_heading_of_the_probabilities_names_the_classes(gateway: Gateway) -> None:
    assert "PROBABILITIES (0, 1, 2, 3, 4, … 4 more)" in belt(gateway, "predict", "digits", '[{"x": 1}]').stdout


def test_a_regression_has_no_probabilities_and_six_digits(gateway: Gateway) -> None:
    shown = belt(gateway, "predict", "diabetes", '[{"x": 1}]').stdout
    assert "PROBABILITIES" not in shown
    assert shown.split()[-1] == "152.133"


def test_one_bad_cell_leaves_the_others_what_they_are(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\n1,3\nb,late\nc,4.5\nd,true\n")
    done = belt(gateway, "feedback", "digits", str(tmp_path / "labels.csv"))
    assert [tuple(one.values()) for one in gateway.asked[0]["labels"]] == [
        ("1", 3), ("b", "late"), ("c", 4.5), ("d", True),
    ]  # fmt: skip
    assert done.exit_code == 1
    assert "label 1: 'label' must be a whole number (y); and 2 more" in done.stderr
    assert (
        "0 of 4 labels are known to be accepted; correct the error, then send all of them again: each counts once"
        in done.stderr
    )


def test_many_labels_are_sent_in_batches_and_counted_as_one(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\n" + "a,3\n" * 2001)
    done = belt(gateway, "feedback", "digits", str(tmp_path / "labels.csv"), "--json")
    assert [len(asked["labels"]) for asked in gateway.asked] == [1000, 1000, 1]
    assert json.loads(done.stdout) == {"accepted": 2001}


def test_a_batch_that_is_refused_says_what_was_taken_before(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\n" + "a,3\n" * 1001 + "b,late\n")
    done = belt(gateway, "feedback", "digits", str(tmp_path / "labels.csv"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "(label 0 in this error is your label 1000)\n1000 of 1002 labels are known to be accepted" in done.stderr


def test_a_name_that_no_model_can_have_is_said(gateway: Gateway) -> None:
    assert "no model 'No such'" in belt(gateway, "predict", "No such", '[{"x": 1}]').stderr
    assert "no model 'No such'" in belt(gateway, "feedback", "No such", "a=1").stderr
    assert gateway.asked == []


@pytest.mark.parametrize(("given", "label"), [("digits.7-aaaaaaaa.0=3", 3), ("digits.7-aaaaaaaa.0=three", "three")])
def test_one_label_is_given_as_id_and_value(gateway: Gateway, given: str, label: object) -> None:
    assert belt(gateway, "feedback", "digits", given).stdout == "1 labels accepted\n"
    assert gateway.asked == [{"labels": [{"id": "digits.7-aaaaaaaa.0", "label": label}]}]


def test_labels_come_from_a_file_with_the_type_of_the_column(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label,note\na,3,\nb,4,late\n")
    assert json.loads(belt(gateway, "feedback", "digits", str(tmp_path / "labels.csv"), "--json").stdout) == {
        "accepted": 2
    }
    assert gateway.asked == [{"labels": [{"id": "a", "label": 3}, {"id": "b", "label": 4}]}]


def test_a_label_without_an_id_is_named_by_its_row(gateway: Gateway) -> None:
    done = belt(gateway, "feedback", "digits", '[{"id": "a", "label": 1}, {"label": 2}]')
    assert done.exit_code == 1
    assert "row 2 of the labels has no id" in done.stderr
    assert gateway.asked == []
