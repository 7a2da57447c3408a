"""The rules of an invitation: each decides, refuses, and stays quiet (contract §3.5, §5.5)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.invitations.domain import (
    INVITATION,
    AcceptInvitation,
    CreateInvitation,
    DeleteInvitation,
    ExpireInvitation,
    InvitationClosed,
    InvitationEvent,
    InvitationNotResendable,
    Invitee,
    LinkExpired,
    LinkUnknown,
    LinkUsed,
    ResendInvitation,
    RevokeInvitation,
    TermOutOfRange,
    UserHasNoEmail,
    UserNotFound,
    closed_by,
    require_open,
)
from services.invitations.events import (
    InvitationAccepted,
    InvitationCreated,
    InvitationExpired,
    InvitationResent,
    InvitationRevoked,
)
from shared.errors import Refused
from tests.support.given import given

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(days=2)
END = NOON + timedelta(days=7)
MOMENT = timedelta(microseconds=1)

CREATE = CreateInvitation(
    ref="r1", user_id="ada", invitee=Invitee.WITH_EMAIL, id_hash="hash-1", by="root", now=NOON, expires_at=END
)
RESEND = ResendInvitation(invitee=Invitee.WITH_EMAIL, generation=2, id_hash="hash-2", by="root", now=LATER)
ACCEPT = AcceptInvitation(id_hash="hash-1", user_id="ada", claim_id="c1", now=LATER)
DELETE = DeleteInvitation(by="root", now=LATER)
REVOKE = RevokeInvitation(by="root", now=LATER)

CREATED = InvitationCreated(
    ref="r1", user_id="ada", generation=1, id_hash="hash-1", created_by="root", created_at=NOON, expires_at=END
)
RESENT = InvitationResent(
    ref="r1",
    user_id="ada",
    generation=2,
    id_hash="hash-2",
    resent_by="root",
    resent_at=LATER,
    expires_at=LATER + timedelta(days=7),
)
ACCEPTED = InvitationAccepted(ref="r1", user_id="ada", claim_id="c1", accepted_at=LATER)
REVOKED = InvitationRevoked(ref="r1", user_id="ada", revoked_by="root", revoked_at=LATER)
EXPIRED = InvitationExpired(ref="r1", user_id="ada", expired_at=END)

CLOSED = pytest.mark.parametrize("closing", [ACCEPTED, REVOKED, EXPIRED], ids=["accepted", "revoked", "expired"])
UNREACHABLE = pytest.mark.parametrize(
    ("invitee", "refusal"), [(Invitee.UNKNOWN, UserNotFound), (Invitee.WITHOUT_EMAIL, UserHasNoEmail)]
)


def test_a_user_with_an_email_is_invited() -> None:
    given(INVITATION).when(CREATE).then(CREATED)


def test_an_invitation_says_whether_its_link_is_to_be_mailed() -> None:
    mailed = {"send_email": True}
    given(INVITATION).when(replace(CREATE, send_email=True)).then(CREATED.model_copy(update=mailed))
    given(INVITATION, CREATED).when(replace(RESEND, send_email=True)).then(RESENT.model_copy(update=mailed))


@pytest.mark.parametrize(
    ("history", "generation", "now", "closed"),
    [
        ([CREATED], 1, LATER, None),
        ([CREATED], 1, END - MOMENT, None),
        ([CREATED], 1, END, "expired"),
        ([CREATED, EXPIRED], 1, END, "expired"),
        ([CREATED, RESENT], 1, LATER, "resent"),
        ([CREATED, RESENT], 2, END, None),
        ([CREATED, ACCEPTED], 1, LATER, "accepted"),
        ([CREATED, REVOKED], 1, LATER, "revoked"),
        ([], 1, LATER, "unknown"),
    ],
)
def test_a_link_is_made_again_only_while_it_opens_something(
    history: list[InvitationEvent], generation: int, now: datetime, closed: str | None
) -> None:
    assert closed_by(INVITATION.fold(history), generation, now) == closed


@UNREACHABLE
def test_a_user_who_is_unknown_or_has_no_email_is_not_invited(invitee: Invitee, refusal: type[Refused]) -> None:
    given(INVITATION).when(replace(CREATE, invitee=invitee)).refused(refusal)


def test_inviting_twice_under_one_ref_invites_once() -> None:
    given(INVITATION, CREATED).when(CREATE).then()


@pytest.mark.parametrize("term", [timedelta(hours=1), timedelta(days=90)])
def test_a_term_may_be_the_shortest_and_the_longest(term: timedelta) -> None:
    end = NOON + term
    given(INVITATION).when(replace(CREATE, expires_at=end)).then(CREATED.model_copy(update={"expires_at": end}))


@pytest.mark.parametrize("term", [timedelta(hours=1) - MOMENT, timedelta(days=90) + MOMENT])
def test_a_term_shorter_or_longer_than_those_is_refused_by_the_field(term: timedelta) -> None:
    refused = given(INVITATION).when(replace(CREATE, expires_at=NOON + term)).refused(TermOutOfRange)
    assert refused.param == "duration"


def test_an_open_invitation_is_resent_with_a_new_link_and_its_full_term() -> None:
    given(INVITATION, CREATED).when(RESEND).then(RESENT)


@pytest.mark.parametrize("happened", [[CREATED], [CREATED, EXPIRED]], ids=["by the clock", "by its event"])
def test_an_expired_invitation_is_resent_and_open_again(happened: list[InvitationEvent]) -> None:
    late = END + timedelta(days=1)
    resent = RESENT.model_copy(update={"resent_at": late, "expires_at": late + timedelta(days=7)})
    given(INVITATION, *happened).when(replace(RESEND, now=late)).then(resent)
    accept = replace(ACCEPT, id_hash="hash-2", now=late)
    given(INVITATION, *happened, resent).when(accept).then(ACCEPTED.model_copy(update={"accepted_at": late}))


@pytest.mark.parametrize("closing", [ACCEPTED, REVOKED], ids=["accepted", "revoked"])
def test_an_accepted_or_revoked_invitation_is_not_resent(closing: InvitationEvent) -> None:
    refused = given(INVITATION, CREATED, closing).when(RESEND).refused(InvitationNotResendable)
    assert refused.status == 409


@UNREACHABLE
def test_an_invitation_of_such_a_user_is_not_resent(invitee: Invitee, refusal: type[Refused]) -> None:
    given(INVITATION, CREATED).when(replace(RESEND, invitee=invitee)).refused(refusal)


def test_what_is_closed_is_the_first_reason_not_to_resend() -> None:
    given(INVITATION, CREATED, REVOKED).when(replace(RESEND, invitee=Invitee.UNKNOWN)).refused(InvitationNotResendable)


def test_resending_the_same_generation_twice_makes_one_link() -> None:
    given(INVITATION, CREATED, RESENT).when(RESEND).then()


def test_the_invited_accepts() -> None:
    given(INVITATION, CREATED).when(ACCEPT).then(ACCEPTED)


def test_the_invited_accepts_until_the_last_moment() -> None:
    last = END - MOMENT
    given(INVITATION, CREATED).when(replace(ACCEPT, now=last)).then(ACCEPTED.model_copy(update={"accepted_at": last}))


@pytest.mark.parametrize("happened", [[CREATED], [CREATED, EXPIRED]], ids=["by the clock", "by its event"])
def test_from_the_end_of_its_term_on_nobody_accepts(happened: list[InvitationEvent]) -> None:
    given(INVITATION, *happened).when(replace(ACCEPT, now=END)).refused(LinkExpired)


def test_another_user_does_not_accept() -> None:
    given(INVITATION, CREATED).when(replace(ACCEPT, user_id="bob")).refused(LinkUnknown)


def test_a_second_claim_does_not_accept() -> None:
    given(INVITATION, CREATED, ACCEPTED).when(replace(ACCEPT, claim_id="c2")).refused(LinkUsed)


def test_a_revoked_invitation_is_not_accepted() -> None:
    given(INVITATION, CREATED, REVOKED).when(ACCEPT).refused(LinkUnknown)


def test_a_link_of_an_earlier_generation_is_dead() -> None:
    given(INVITATION, CREATED, RESENT).when(ACCEPT).refused(LinkUnknown)


def test_a_link_that_nobody_made_is_unknown() -> None:
    given(INVITATION).when(ACCEPT).refused(LinkUnknown)


@pytest.mark.parametrize("now", [LATER, END])
def test_the_same_claim_twice_accepts_once(now: datetime) -> None:
    given(INVITATION, CREATED, ACCEPTED).when(replace(ACCEPT, now=now)).then()


def test_the_holder_of_an_open_link_is_told_nothing_bad() -> None:
    require_open(INVITATION.fold([CREATED]), "hash-1", END - MOMENT)


def test_an_admin_takes_an_open_invitation_back() -> None:
    given(INVITATION, CREATED).when(DELETE).then(REVOKED)


@CLOSED
def test_a_closed_invitation_is_not_taken_back(closing: InvitationEvent) -> None:
    given(INVITATION, CREATED, closing).when(DELETE).refused(InvitationClosed)


def test_an_invitation_that_is_over_by_the_clock_is_not_taken_back() -> None:
    refused = given(INVITATION, CREATED).when(replace(DELETE, now=END)).refused(InvitationClosed)
    assert refused.message == "invitation_id: the invitation is expired"


def test_an_invitation_without_purpose_is_revoked() -> None:
    given(INVITATION, CREATED).when(REVOKE).then(REVOKED)


@CLOSED
def test_revoking_a_closed_invitation_is_no_error(closing: InvitationEvent) -> None:
    given(INVITATION, CREATED, closing).when(REVOKE).then()


def test_revoking_one_that_is_over_by_the_clock_leaves_it_expired() -> None:
    given(INVITATION, CREATED).when(replace(REVOKE, now=END)).then()


@pytest.mark.parametrize("noted_at", [END, END + timedelta(days=3)])
def test_an_invitation_expires_when_its_term_ended_however_late_that_is_noted(noted_at: datetime) -> None:
    given(INVITATION, CREATED).when(ExpireInvitation(noted_at)).then(EXPIRED)


def test_an_invitation_does_not_expire_before_its_end() -> None:
    given(INVITATION, CREATED).when(ExpireInvitation(END - MOMENT)).then()


@CLOSED
def test_a_closed_invitation_does_not_expire(closing: InvitationEvent) -> None:
    given(INVITATION, CREATED, closing).when(ExpireInvitation(END)).then()
