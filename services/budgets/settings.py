"""Budgets' settings."""

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from shared.durations import DurationText, parse_duration
from shared.settings import Settings, Zone, setting

REVOCATION_SECONDS_MIN, REVOCATION_SECONDS_MAX = 2, 60
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)


def _seconds(duration: str) -> float:
    return (parse_duration(duration).after(_SOME_DAY) - _SOME_DAY).total_seconds()


def _bounded(duration: str) -> str:
    if not REVOCATION_SECONDS_MIN <= _seconds(duration) <= REVOCATION_SECONDS_MAX:
        raise ValueError("is not from 2s to 60s")
    return duration


class BudgetsSettings(Settings):
    """What budgets is told."""

    timezone: Zone = setting(
        ZoneInfo("UTC"), yaml_path="litellm_settings.timezone", says="Where budget windows begin at midnight."
    )
    budget_thresholds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = setting(
        (0.5, 0.8, 0.95),
        yaml_path="keystead_settings.budget_thresholds",
        says="Shares of a budget; recorded spend that passes one is told, once a window.",
    )
    revocation_bound: Annotated[DurationText, AfterValidator(_bounded)] = setting(
        "5s", yaml_path="keystead_settings.revocation_bound", says="How long an unreachable worker may go on, at most."
    )

    @property
    def revocation_seconds(self) -> float:
        return _seconds(self.revocation_bound)
