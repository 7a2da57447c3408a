"""The portal's pages. The one for addresses that lead nowhere comes last: it takes all that is left."""

from services.portal.pages import assets, keys, log_in, onboarding, outbox

ROUTERS = (log_in.router, onboarding.router, keys.router, outbox.router, assets.router)
