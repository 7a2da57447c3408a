"""The data folder: private, one `up` at a time, and a secret once made stays."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keystead.data_folder import DataFolder, FolderUnusable, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def never_asked() -> str:
    pytest.fail("the secret was made again")


def test_all_that_is_made_is_the_owners_alone(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "new" / "data folder") as data:
        data.secret("master-key", lambda: "sk-one")
    made = [data.path, *data.path.rglob("*")]
    assert {(path.name, mode(path)) for path in made if path.is_dir() and mode(path) != 0o700} == set()
    assert {(path.name, mode(path)) for path in made if path.is_file() and mode(path) != 0o600} == set()


def test_a_folder_that_someone_made_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    DataFolder(tmp_path).close()
    assert mode(tmp_path) == 0o750


def test_a_relative_path_is_the_folder_seen_from_here_and_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DataFolder(Path(".keystead")) as data:
        assert data.postgres == tmp_path / ".keystead" / "postgres"


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as data:
        assert data.secret("master-key", lambda: "sk-one") == "sk-one"
        assert data.secret("master-key", never_asked) == "sk-one"
    with DataFolder(tmp_path) as data:
        assert data.secret("master-key", never_asked) == "sk-one"


def test_secrets_have_names(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as data:
        assert data.secret("master-key", lambda: "sk-one") != data.secret("secret-key", lambda: "two")


def test_a_secret_restored_too_open_is_closed_again(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as data:
        data.secret("master-key", lambda: "sk-one")
        path = data.path / "secrets" / "master-key"
        path.chmod(0o644)
        assert data.secret("master-key", never_asked) == "sk-one"
        assert mode(path) == 0o600


def test_an_emptied_secret_is_not_taken_for_one(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as data:
        data.secret("master-key", lambda: "sk-one")
        (data.path / "secrets" / "master-key").write_text("\n", encoding="utf-8")
        with pytest.raises(FolderUnusable, match="master-key is empty"):
            data.secret("master-key", never_asked)


def test_a_secret_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as data:
        with pytest.raises(ZeroDivisionError):
            data.secret("master-key", lambda: str(1 // 0))
        assert [*(data.path / "secrets").iterdir()] == []


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_private(path, "a long first content")
    write_private(path, "ä")
    assert path.read_text(encoding="utf-8") == "ä"
    assert mode(path) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_a_second_up_on_the_folder_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with DataFolder(tmp_path), pytest.raises(FolderUnusable, match=rf"process {os.getpid()}\).*--data"):
        DataFolder(tmp_path)


def test_a_folder_given_back_can_be_taken(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    data.close()
    data.close()
    DataFolder(tmp_path).close()


def test_the_folder_of_a_killed_process_can_be_taken(tmp_path: Path) -> None:
    take_and_die = "import os, pathlib, sys; from keystead.data_folder import DataFolder;"
    take_and_die += "DataFolder(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", take_and_die, tmp_path], check=False).returncode == -9
    assert (tmp_path / "up.lock").exists()
    DataFolder(tmp_path).close()


@pytest.mark.parametrize("path", ["file", "file/data", "file/data/deeper"])
def test_a_file_in_the_way_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable, match=rf"can't be used: {tmp_path}/file.* is no folder"):
        DataFolder(tmp_path / path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that is another's")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(FolderUnusable, match="belongs to user 12345, and this is user 0"):
        DataFolder(tmp_path)
