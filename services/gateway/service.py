"""The gateway: turns credentials into principals, serves the model routes, admits calls by what is current.

It owns nothing durable; it hears keys and identity, and asks budgets for every hold.
"""

from services.gateway import api, verify
from services.gateway.gateway import gateway
from services.gateway.settings import GatewaySettings
from shared.events import Catalog
from shared.service import Service

SERVICE = Service(
    name="gateway",
    settings=GatewaySettings,
    catalog=Catalog("gateway"),
    routes=(api.calls, api.router, verify.router),
    lifespan=gateway,
    ready=lambda running: bool(running.own.view.admits),
)
