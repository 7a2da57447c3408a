"""The command line: what it takes, and what it says to a wrong argument."""

import subprocess
import sys
from pathlib import Path

import pytest

from keystead import cli
from keystead.cli import main
from keystead.docs import pages
from keystead.version import version


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "4000.0", "٤٠٠٠", "0x10"])
def test_what_is_no_port_is_refused(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["up", f"--port={port}"])
    assert ended.value.code == 2
    assert f"{port!r} is not a port (1 to 65535)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["down"], ["up", "--portt", "4100"], ["up", "4100"]])
def test_what_is_no_command_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: keystead" in capsys.readouterr().err


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{version()}\n")


def test_help_says_each_argument_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["up", "--help"])
    said = capsys.readouterr().out
    for pair in (
        "--config KEYSTEAD_CONFIG",
        "--data KEYSTEAD_DATA_DIR",
        "--host KEYSTEAD_HOST",
        "--port KEYSTEAD_PORT",
    ):
        assert all(word in said for word in pair.split())


def test_help_does_not_wait_for_the_services_to_be_imported() -> None:
    asked = "import sys; from keystead.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    program = asked + "sys.exit(bool({'services', 'shared', 'pydantic', 'sqlalchemy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_a_setting_that_is_wrong_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere.yaml"
    assert main(["up", "--data", str(tmp_path / "data"), "--config", str(nowhere)]) == 2
    assert capsys.readouterr().err == f"{nowhere}: can't be read (No such file or directory)\n"


def test_a_folder_that_can_not_be_used_ends_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["up", "--data", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == (
        f"keystead: The data folder {tmp_path}/file can't be used: {tmp_path}/file is no folder."
        " Choose another with --data.\n"
    )


def test_ctrl_c_before_anything_runs_ends_as_an_interrupted_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_up", interrupted)
    assert main(["up"]) == 130


def test_docs_writes_its_pages(tmp_path: Path) -> None:
    assert main(["docs", str(tmp_path / "new")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == dict(pages())


def test_docs_says_which_page_is_stale_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", str(tmp_path)]) == 0
    assert (main(["docs", str(tmp_path), "--check"]), capsys.readouterr().err) == (0, "")
    settings, events = tmp_path / "settings.md", tmp_path / "events.md"
    first, *more = settings.read_text().splitlines(keepends=True)
    settings.write_text("".join([first, "Settled.\n", *more]))
    events.unlink()
    assert main(["docs", str(tmp_path), "--check"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[:-1] == [f"{settings} is stale from line 2 on", f"{events} is not there"]
    assert "make docs" in said[-1]
    assert "Settled." in settings.read_text()
