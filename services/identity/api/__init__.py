"""Identity's routes: users, sessions, onboarding."""

from services.identity.api import onboarding, session_list, sessions, users

ROUTERS = (users.router, sessions.router, session_list.router, onboarding.router)
