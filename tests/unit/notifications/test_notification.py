"""The rules of a mail: what may have been sent is not sent again, and what lost its purpose is not sent at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.notifications.domain import (
    BACK_OFF,
    NOTIFICATION,
    OUTCOME_UNKNOWN,
    HandOver,
    NotificationCommand,
    NotificationEvent,
    QueueNotification,
    ReportLost,
    ReportSent,
    ReportTrouble,
    Subject,
    WithdrawNotification,
)
from services.notifications.events import (
    NotificationAttempted,
    NotificationDeferred,
    NotificationFailed,
    NotificationQueued,
    NotificationSent,
    NotificationWithdrawn,
)
from tests.support.given import given

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SUBJECT = Subject(id="m1", kind="invitation", user_id="ada", ref="r1", generation=2)

QUEUE, HAND_OVER = QueueNotification(SUBJECT, NOON), HandOver(NOON)
SENT_IT, LOST_IT = ReportSent(NOON), ReportLost(NOON)
BUSY = ReportTrouble("busy", for_good=False, now=NOON)
REFUSED = ReportTrouble("550", for_good=True, now=NOON)
WITHDRAW = WithdrawNotification("revoked", NOON)

QUEUED = NotificationQueued(id="m1", kind="invitation", user_id="ada", ref="r1", generation=2, queued_at=NOON)
ATTEMPTED = NotificationAttempted(id="m1", attempt=1, attempted_at=NOON)
SENT = NotificationSent(id="m1", kind="invitation", user_id="ada", ref="r1", generation=2, attempts=1, sent_at=NOON)
FAILED = NotificationFailed(
    id="m1",
    kind="invitation",
    user_id="ada",
    ref="r1",
    generation=2,
    attempts=1,
    reason="refused",
    error="550",
    failed_at=NOON,
)
UNKNOWN = FAILED.model_copy(update={"reason": "outcome_unknown", "error": OUTCOME_UNKNOWN})
WITHDRAWN = NotificationWithdrawn(id="m1", reason="revoked", withdrawn_at=NOON)


def deferred(attempt: int) -> NotificationDeferred:
    return NotificationDeferred(
        id="m1", attempt=attempt, error="busy", deferred_at=NOON, due_at=NOON + BACK_OFF[attempt - 1]
    )


ENDED = pytest.mark.parametrize(
    "history",
    [[QUEUED, ATTEMPTED, SENT], [QUEUED, ATTEMPTED, FAILED], [QUEUED, ATTEMPTED, UNKNOWN], [QUEUED, WITHDRAWN]],
    ids=["sent", "failed", "unknown", "withdrawn"],
)


def test_a_mail_is_queued_once_however_often_it_is_asked_for() -> None:
    given(NOTIFICATION).when(QUEUE).then(QUEUED)
    given(NOTIFICATION, QUEUED).when(replace(QUEUE, now=NOON + timedelta(days=1))).then()


def test_a_mail_is_handed_over_by_one() -> None:
    given(NOTIFICATION, QUEUED).when(HAND_OVER).then(ATTEMPTED)
    given(NOTIFICATION, QUEUED, ATTEMPTED).when(HAND_OVER).then()
    given(NOTIFICATION).when(HAND_OVER).then()


@ENDED
@pytest.mark.parametrize(
    "command", [QUEUE, HAND_OVER, BUSY, REFUSED, LOST_IT, WITHDRAW], ids=lambda c: type(c).__name__
)
def test_a_mail_that_has_ended_begins_no_more(history: list[NotificationEvent], command: NotificationCommand) -> None:
    given(NOTIFICATION, *history).when(command).then()


def test_a_mail_that_was_taken_is_sent() -> None:
    given(NOTIFICATION, QUEUED, ATTEMPTED).when(SENT_IT).then(SENT)
    given(NOTIFICATION, QUEUED, deferred(1), deferred(2), ATTEMPTED.model_copy(update={"attempt": 3})).when(
        SENT_IT
    ).then(SENT.model_copy(update={"attempts": 3}))


def test_a_mail_that_was_given_up_too_early_is_sent_after_all() -> None:
    """By a process that was frozen meanwhile: it is still the truth."""
    given(NOTIFICATION, QUEUED, ATTEMPTED, UNKNOWN).when(SENT_IT).then(SENT)


@pytest.mark.parametrize("history", [[], [QUEUED], [QUEUED, ATTEMPTED, SENT], [QUEUED, WITHDRAWN]], ids=len)
def test_nothing_is_sent_that_nobody_handed_over(history: list[NotificationEvent]) -> None:
    given(NOTIFICATION, *history).when(SENT_IT).then()


def test_a_refusal_for_now_waits_longer_each_time_and_then_ends() -> None:
    history: list[NotificationEvent] = [QUEUED]
    for attempt in range(1, len(BACK_OFF) + 1):
        given(NOTIFICATION, *history).when(BUSY).then(deferred(attempt))
        history.append(deferred(attempt))
    last = len(BACK_OFF) + 1
    given(NOTIFICATION, *history).when(BUSY).then(
        FAILED.model_copy(update={"attempts": last, "reason": "given_up", "error": "busy"})
    )
    assert sorted(BACK_OFF) == list(BACK_OFF)


def test_an_attempt_counts_once_wherever_it_failed() -> None:
    given(NOTIFICATION, QUEUED).when(BUSY).then(deferred(1))
    given(NOTIFICATION, QUEUED, ATTEMPTED).when(BUSY).then(deferred(1))
    given(NOTIFICATION, QUEUED, ATTEMPTED, deferred(1)).when(HAND_OVER).then(
        ATTEMPTED.model_copy(update={"attempt": 2})
    )


def test_a_refusal_for_good_ends_it_at_once() -> None:
    given(NOTIFICATION, QUEUED).when(REFUSED).then(FAILED)
    given(NOTIFICATION, QUEUED, ATTEMPTED).when(REFUSED).then(FAILED)
    given(NOTIFICATION).when(REFUSED).then()


def test_of_what_was_handed_over_and_never_heard_of_again_it_is_said_that_nobody_knows() -> None:
    given(NOTIFICATION, QUEUED, ATTEMPTED).when(LOST_IT).then(UNKNOWN)
    given(NOTIFICATION, QUEUED).when(LOST_IT).then()


def test_a_mail_is_withdrawn_until_it_is_handed_over() -> None:
    given(NOTIFICATION, QUEUED).when(WITHDRAW).then(WITHDRAWN)
    given(NOTIFICATION, QUEUED, ATTEMPTED, deferred(1)).when(WITHDRAW).then(WITHDRAWN)
    given(NOTIFICATION, QUEUED, ATTEMPTED).when(WITHDRAW).then()
    given(NOTIFICATION).when(WITHDRAW).then()
