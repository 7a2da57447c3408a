"""Identity's routes: users, sessions, onboarding."""

from services.identity.api import onboarding, sessions, users

ROUTERS = (users.router, sessions.router, onboarding.router)
