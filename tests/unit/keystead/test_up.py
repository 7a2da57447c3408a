"""What `up` does before anything runs: takes the address, makes what is missing, says what it says."""

import base64
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keystead.configuration import UNMADE, configuration
from keystead.data_folder import DataFolder
from keystead.process import PortTaken, address_of, listening
from keystead.settings import ProcessSettings
from keystead.up import UpArguments, _greeting, _make, _variables


def process(**environment: str) -> ProcessSettings:
    return configuration({}, environment, UNMADE).process


def test_an_argument_is_the_variable_that_it_goes_before() -> None:
    arguments = UpArguments(data=Path("a folder"), config=Path("k.yaml"), host="::1", port=4100)
    assert _variables(arguments) == {
        "KEYSTEAD_DATA_DIR": "a folder",
        "KEYSTEAD_CONFIG": "k.yaml",
        "KEYSTEAD_HOST": "::1",
        "KEYSTEAD_PORT": "4100",
    }
    assert _variables(UpArguments()) == {}


def test_what_was_not_given_is_made_once(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as data:
        made = _make(process(), data, "http://127.0.0.1:4000")
        assert _make(process(), data, "http://127.0.0.1:4000") == made
    assert len(base64.b64decode(made.secret_key)) == 32
    assert made.master_key.startswith("sk-") and made.master_key != UNMADE.master_key
    assert made.base_url == "http://127.0.0.1:4000"


def test_what_was_given_is_not_made(tmp_path: Path) -> None:
    given = process(
        KEYSTEAD_MASTER_KEY="sk-a-master-key-of-ours", KEYSTEAD_SECRET_KEY=base64.b64encode(bytes(40)).decode()
    )
    with DataFolder(tmp_path) as data:
        made = _make(given, data, "http://127.0.0.1")
        assert made == replace(UNMADE, base_url="http://127.0.0.1", api_url="http://127.0.0.1:4000")
    assert [*(tmp_path / "secrets").iterdir()] == []


@pytest.mark.parametrize(
    ("host", "api_url"),
    [
        ("0.0.0.0", "http://127.0.0.1:4000"),
        ("::", "http://[::1]:4000"),
        ("192.0.2.7", "http://192.0.2.7:4000"),
        ("localhost", "http://localhost:4000"),
    ],
)
def test_the_pages_reach_the_api_on_this_machine(tmp_path: Path, host: str, api_url: str) -> None:
    with DataFolder(tmp_path) as data:
        made = _make(process(KEYSTEAD_HOST=host), data, "https://keystead.example.com")
    assert configuration({}, {}, made).services["portal"].api_address == api_url
    assert configuration({}, {"KEYSTEAD_API_URL": "http://gateway:4000"}, made).services["portal"].api_address == (
        "http://gateway:4000"
    )


def test_the_address_is_one_that_can_be_typed() -> None:
    assert address_of(process(KEYSTEAD_HOST="::1", KEYSTEAD_PORT="80")) == "http://[::1]:80"
    assert address_of(process(KEYSTEAD_HOST="localhost")) == "http://localhost:4000"


def test_what_listens_can_be_connected_to_before_anything_runs() -> None:
    with listening("127.0.0.1", 0, "up") as at, socket.create_connection(at.getsockname()):
        pass


@pytest.mark.parametrize("port", [4000, 65100])
def test_a_taken_port_is_told_with_another(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", taken)
    other = {4000: 4100, 65100: 65000}[port]
    with pytest.raises(PortTaken, match=rf"port {port} on 127.0.0.1 can't .* keystead up --port {other},"):
        listening("127.0.0.1", port, "up").__enter__()


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a" * 70, ".."])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(PortTaken, match=r"no address of this machine|can't be listened on"):
        listening(host, 4000, "up").__enter__()


def test_two_cannot_take_one_port_before_either_serves() -> None:
    with listening("127.0.0.1", 0, "up") as at:
        port = at.getsockname()[1]
        with pytest.raises(PortTaken):
            listening("127.0.0.1", port, "up").__enter__()


def test_the_greeting_can_be_pasted_into_a_shell() -> None:
    said = _greeting("http://127.0.0.1:4000", "sk-it's $HOME", Path("my models.yaml"))
    assert "KEYSTEAD_URL=http://127.0.0.1:4000 KEYSTEAD_MASTER_KEY='sk-it'\"'\"'s $HOME'" in said
    assert "the models of my models.yaml" in said
    assert "mock-gpt" in _greeting("http://127.0.0.1:4000", "sk-1", None)
    commands = [line for line in said.splitlines() if line.startswith("  ")]
    assert len(commands) == 3
