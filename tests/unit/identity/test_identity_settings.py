"""What identity is told of sessions and of failed log-ins, and what stops the start (§4.3, §4.5)."""

import base64
from typing import Any

import pytest

from services.identity.settings import IdentitySettings
from shared.settings import SettingsInvalid, load

GIVEN = {
    "KEYSTEAD_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    "KEYSTEAD_MASTER_KEY": "sk-a-master-key-for-tests",
    "PROXY_BASE_URL": "http://keystead.test",
}
THROTTLE = {
    "max_failed_login_attempts_per_source": "failed_logins_max_per_source",
    "failed_login_window_seconds": "failed_login_window_seconds",
    "failed_login_block_seconds": "failed_login_block_seconds",
}


def settings_of(content: dict[str, Any]) -> IdentitySettings:
    settings, _ = load({"identity": IdentitySettings}, content, GIVEN)
    loaded: IdentitySettings = settings["identity"]
    return loaded


def fault_of(content: dict[str, Any]) -> str:
    with pytest.raises(SettingsInvalid) as invalid:
        settings_of(content)
    (fault,) = invalid.value.faults
    return fault


def test_the_throttle_has_the_contracts_figures() -> None:
    settings = settings_of({})
    assert [getattr(settings, field) for field in THROTTLE.values()] == [100, 60, 300]


@pytest.mark.parametrize("name", THROTTLE)
@pytest.mark.parametrize("value", [0, 1, 10_000, "12"])
def test_the_throttles_figures_are_settings(name: str, value: int | str) -> None:
    assert getattr(settings_of({"general_settings": {name: value}}), THROTTLE[name]) == int(value)


@pytest.mark.parametrize("name", THROTTLE)
@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (-1, "is out of range (at least 0)"),
        (86_401, "is out of range (at most "),
        ("many", "is not an integer"),
        (1.5, "is not an integer"),
        (True, "is not an integer"),
        (None, "is not an integer"),
    ],
)
def test_what_is_no_figure_of_the_throttle_stops_the_start(name: str, value: object, wrong: str) -> None:
    fault = fault_of({"general_settings": {name: value}})
    assert fault.startswith(f"general_settings.{name}: ") and wrong in fault


@pytest.mark.parametrize("idle", ["1m", "60s", "8h", "30d", "1mo"])
def test_a_session_may_be_unused_for_a_minute_or_longer(idle: str) -> None:
    assert settings_of({"keystead_settings": {"session_idle_timeout": idle}}).session_idle_timeout == idle


@pytest.mark.parametrize("idle", ["1s", "59s"])
def test_under_a_minute_sessions_in_use_would_end_and_so_it_stops_the_start(idle: str) -> None:
    fault = fault_of({"keystead_settings": {"session_idle_timeout": idle}})
    assert fault == f'keystead_settings.session_idle_timeout: "{idle}" is too short (at least 1m)'
