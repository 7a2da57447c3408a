"""What is logged: to standard error, for a person or for a machine, and never what a function held when it failed."""

import json
import logging

import pytest
import structlog

from shared.log import LEVELS, configure


def fail_with(password: str) -> None:
    try:
        raise RuntimeError("it failed")
    except RuntimeError:
        structlog.get_logger().exception("something.failed", held=len(password))


def test_readable_lines_have_no_colours_where_nobody_sees_them(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "readable")
    structlog.get_logger().info("worker.joined", worker_id="w1")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("Z [info     ] worker.joined worker_id=w1\n")


@pytest.mark.parametrize("form", ["readable", "json"])
def test_a_traceback_shows_no_values(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json" if form == "json" else "readable")
    fail_with("correct horse battery staple")
    said = capsys.readouterr().err
    assert "RuntimeError: it failed" in said
    assert "correct horse" not in said


def test_json_is_a_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    fail_with("secret")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["held"]) == ("something.failed", "error", 6)
    assert "RuntimeError: it failed" in told["exception"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_leaves_out_what_is_below_it(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(level, "json")
    for each in LEVELS:
        structlog.get_logger().log(getattr(logging, each.upper()), each)
    told = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert told == [*LEVELS[LEVELS.index(level) :]]


def test_what_libraries_log_goes_the_same_way_from_warnings_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest has some of its own there
    configure("debug", "readable")
    logging.getLogger("a.library").info("Started server process")
    logging.getLogger("a.library").warning("Invalid HTTP request received.")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "WARNING a.library Invalid HTTP request received.\n")


def test_what_libraries_log_is_a_line_an_event_too_where_machines_read_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    configure("info", "json")
    try:
        raise RuntimeError("it failed")
    except RuntimeError:
        logging.getLogger("a.library").exception("Task exception was %s", "never retrieved")
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["logger"]) == (
        "Task exception was never retrieved",
        "error",
        "a.library",
    )
    assert "RuntimeError: it failed" in told["exception"]
    logging.getLogger("faststream").setLevel(logging.ERROR)
