"""The rules of a session: started once, ended once (§5.6)."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from services.identity.domain.session import SESSION, Ending, EndSession, Method, StartSession, stream_of
from services.identity.events import SessionEnded, SessionStarted
from tests.support.given import given

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
END = NOON + timedelta(hours=24)

START = StartSession(
    session_id="s1",
    user_id="ada",
    token="e3b0",
    method="password",
    sealed_ip="an address, sealed",
    sealed_user_agent="a browser, sealed",
    expires_at=END,
    now=NOON,
)
STARTED = SessionStarted(
    session_id="s1",
    user_id="ada",
    token="e3b0",
    method="password",
    sealed_ip="an address, sealed",
    sealed_user_agent="a browser, sealed",
    started_at=NOON,
    expires_at=END,
)
STOP = EndSession("s1", "logged_out", LATER)
ENDED = SessionEnded(session_id="s1", user_id="ada", token="e3b0", reason="logged_out", ended_at=LATER)


def test_a_session_is_started() -> None:
    given(SESSION).when(START).then(STARTED)


@pytest.mark.parametrize("happened", [[STARTED], [STARTED, ENDED]], ids=["active", "ended"])
def test_starting_the_same_session_again_is_quiet(happened: list[SessionStarted | SessionEnded]) -> None:
    given(SESSION, *happened).when(START).then()


@pytest.mark.parametrize("method", get_args(Method))
def test_a_session_tells_how_it_was_started(method: Method) -> None:
    event = STARTED.model_copy(update={"method": method})
    given(SESSION, event).when(STOP).then(ENDED)


@pytest.mark.parametrize("reason", get_args(Ending))
def test_an_active_session_ends_for_a_reason_and_tells_whose_it_was(reason: Ending) -> None:
    given(SESSION, STARTED).when(EndSession("s1", reason, LATER)).then(ENDED.model_copy(update={"reason": reason}))


def test_a_session_that_never_was_ends_quietly() -> None:
    given(SESSION).when(STOP).then()


@pytest.mark.parametrize("reason", get_args(Ending))
def test_ended_twice_is_ended_once_whatever_the_second_reason(reason: Ending) -> None:
    given(SESSION, STARTED, ENDED).when(EndSession("s1", reason, END)).then()


def test_each_session_has_a_stream() -> None:
    assert stream_of("s1") == "session-s1"
