"""The portal: the web pages. It owns nothing, tells nothing and hears nothing; it uses the REST API as anyone would."""

from services.portal import pages
from services.portal.portal import portal
from services.portal.settings import PortalSettings
from shared.events import Catalog
from shared.service import Service

SERVICE = Service(
    name="portal",
    settings=PortalSettings,
    catalog=Catalog("portal"),
    routes=pages.ROUTERS,
    lifespan=portal,
)
