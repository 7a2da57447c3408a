"""The portal's settings."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from shared.settings import SecretKey, Settings, WebAddress, setting


class PortalSettings(Settings):
    """What the portal is told."""

    keyring: SecretKey = setting(env=("KEYSTEAD_SECRET_KEY",), says="≥ 32 bytes, base64; seals what must be sealed.")
    base_url: WebAddress = setting(
        env=("PROXY_BASE_URL",), says="What links are built from, and where requests by cookie must come from."
    )
    api_url: WebAddress | None = setting(
        None, env=("KEYSTEAD_API_URL",), says="Where the portal reaches the API; default the base URL."
    )
    logout_url: WebAddress | None = setting(None, env=("PROXY_LOGOUT_URL",), says="Where a log-out leads.")
    password_length_min: Annotated[int, BeforeValidator(int), Field(ge=8, le=64)] = setting(
        15, yaml_path="general_settings.password_policy_min_length", says="Characters a password must have."
    )

    @property
    def api_address(self) -> str:
        return self.api_url or self.base_url

    @property
    def form_targets(self) -> str:
        """Where forms may lead, as a policy says it; browsers hold a redirect to it too, and a log-out ends in one."""
        if self.logout_url is None:
            return "'self'"
        place = urlsplit(self.logout_url)
        return f"'self' {place.scheme}://{place.netloc}"
