"""Notifications: what people are told by mail, and what became of each mail.

Owns the delivery state of mails: ids, not contents. Tells when one is queued, sent, failed, withdrawn. Hears of
invitations, which ask for mails and make them needless, and of users who are gone. Asks invitations for the link and
identity for the address when a mail is sent or shown. Nobody calls it to send.
"""

from services.notifications import api, delivery, jobs, read_model, subscriptions
from services.notifications.events import CATALOG
from services.notifications.settings import NotificationsSettings
from shared.service import Service

SERVICE = Service(
    name="notifications",
    settings=NotificationsSettings,
    catalog=CATALOG,
    routes=[api.router],
    metadata=read_model.METADATA,
    projections=[read_model.NOTIFICATIONS],
    subscriptions=subscriptions.SUBSCRIPTIONS,
    jobs=jobs.JOBS,
    lifespan=delivery.post,
)
