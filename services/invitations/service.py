"""Invitations: single-use, expiring offers to one user to set a password.

Owns invitations. Tells when one is created, resent, accepted, revoked, expired. Hears of users: who is there, whether
with an e-mail, and who is gone; of notifications: which link was mailed. Answers identity, which serves the
claim, and notifications, which mails the link.
"""

from services.invitations import api, jobs, read_model, subscriptions
from services.invitations.events import CATALOG
from services.invitations.requests import AcceptInvitation, CheckInvitation, MakeLink
from services.invitations.settings import InvitationsSettings
from shared.service import Service

SERVICE = Service(
    name="invitations",
    settings=InvitationsSettings,
    catalog=CATALOG,
    routes=[api.router],
    metadata=read_model.METADATA,
    projections=[read_model.INVITATIONS, read_model.USERS, read_model.MAILED],
    subscriptions=subscriptions.SUBSCRIPTIONS,
    answers={
        CheckInvitation: subscriptions.check_invitation,
        AcceptInvitation: subscriptions.accept_invitation,
        MakeLink: subscriptions.make_link,
    },
    jobs=jobs.JOBS,
)
