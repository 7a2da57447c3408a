"""How long an invitation is open unless somebody says otherwise (§4.5)."""

import base64

import pytest

from services.invitations.settings import InvitationsSettings
from shared.settings import SettingsInvalid, load

SECRET = {"KEYSTEAD_SECRET_KEY": base64.b64encode(bytes(32)).decode()}


def duration_of(content: dict[str, object]) -> str:
    settings, _ = load({"invitations": InvitationsSettings}, content, SECRET)
    duration: str = settings["invitations"].invitation_duration
    return duration


def test_an_invitation_is_open_for_seven_days() -> None:
    assert duration_of({}) == "7d"


@pytest.mark.parametrize("duration", ["1h", "60m", "90d", "2160h", "2mo", "weekly"])
def test_another_term_is_taken_from_an_hour_to_ninety_days(duration: str) -> None:
    assert duration_of({"keystead_settings": {"invitation_duration": duration}}) == duration


@pytest.mark.parametrize("duration", ["59m", "91d", "3mo", "1y"])
def test_a_term_that_could_be_shorter_or_longer_stops_the_start(duration: str) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        duration_of({"keystead_settings": {"invitation_duration": duration}})
    assert invalid.value.faults == [f'keystead_settings.invitation_duration: "{duration}" is not from 1h to 90d']


def test_a_term_that_is_no_duration_stops_the_start() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        duration_of({"keystead_settings": {"invitation_duration": "a week"}})
    (fault,) = invalid.value.faults
    assert fault.startswith('keystead_settings.invitation_duration: "a week" is not a duration')


def test_no_invitation_without_the_installations_secret() -> None:
    with pytest.raises(SettingsInvalid, match="KEYSTEAD_SECRET_KEY"):
        load({"invitations": InvitationsSettings}, {}, {})
