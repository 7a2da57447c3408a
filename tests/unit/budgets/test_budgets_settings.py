"""What budgets is told, and what stops the start (§4.2, §4.5)."""

from typing import Any

import pytest

from services.budgets.settings import BudgetsSettings
from shared.settings import SettingsInvalid, load


def settings(**sections: Any) -> BudgetsSettings:
    loaded, _ = load({"budgets": BudgetsSettings}, sections, {})
    told = loaded["budgets"]
    assert isinstance(told, BudgetsSettings)
    return told


def test_what_is_not_said_is_the_contracts_default() -> None:
    told = settings()
    assert (told.timezone.key, told.budget_thresholds, told.revocation_seconds) == ("UTC", (0.5, 0.8, 0.95), 5)


def test_all_of_it_can_be_said() -> None:
    told = settings(
        litellm_settings={"timezone": "Europe/Berlin"},
        keystead_settings={"budget_thresholds": [0.25, 1], "revocation_bound": "1m"},
    )
    assert (told.timezone.key, told.budget_thresholds, told.revocation_seconds) == ("Europe/Berlin", (0.25, 1.0), 60)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("litellm_settings", "timezone", "Mars/Olympus"),
        ("keystead_settings", "revocation_bound", "1s"),
        ("keystead_settings", "revocation_bound", "61s"),
        ("keystead_settings", "revocation_bound", "soon"),
        ("keystead_settings", "budget_thresholds", [0]),
        ("keystead_settings", "budget_thresholds", [1.5]),
        ("keystead_settings", "budget_thresholds", ["half"]),
        ("keystead_settings", "budget_thresholds", 0.5),
    ],
)
def test_what_makes_no_sense_stops_the_start_and_is_named(section: str, name: str, value: Any) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        settings(**{section: {name: value}})
    (fault,) = invalid.value.faults
    assert fault.startswith(f"{section}.{name}")
