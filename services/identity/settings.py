"""Identity's settings."""

from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.identity.events import Role
from shared.durations import DurationText
from shared.settings import ModelNames, SecretKey, Settings, UsdSetting, WebAddress, Zone, setting
from shared.values import LimitInt


class DefaultUserParams(BaseModel):
    """What fills the gaps of new users (§5.9)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    user_role: Role | None = None
    max_budget: UsdSetting | None = None
    budget_duration: DurationText | None = None
    models: tuple[str, ...] = ()
    tpm_limit: LimitInt | None = None
    rpm_limit: LimitInt | None = None
    max_parallel_requests: LimitInt | None = None


class IdentitySettings(Settings):
    """What identity is told."""

    keyring: SecretKey = setting(env=("KEYSTEAD_SECRET_KEY",), says="Seals what must be sealed: ≥ 32 bytes, base64.")
    master_key: str = setting(
        yaml_path="general_settings.master_key",
        env=("KEYSTEAD_MASTER_KEY", "LITELLM_MASTER_KEY"),
        says="The admin's key; here only the default of UI_PASSWORD.",
    )
    base_url: WebAddress = setting(env=("PROXY_BASE_URL",), says="What links are built from.")
    logout_url: WebAddress | None = setting(None, env=("PROXY_LOGOUT_URL",), says="Where a log-out leads.")
    ui_username: str = setting("admin", env=("UI_USERNAME",), says="Logs in as the master key's user.")
    ui_password: str | None = setting(None, env=("UI_PASSWORD",), says="… with this password; default the master key.")
    session_duration: DurationText = setting(
        "24h", env=("LITELLM_UI_SESSION_DURATION",), says="How long a session lives at most."
    )
    session_idle_timeout: DurationText = setting(
        "8h", yaml_path="keystead_settings.session_idle_timeout", says="How long a session lives unused."
    )
    timezone: Zone = setting(
        ZoneInfo("UTC"), yaml_path="litellm_settings.timezone", says="Where budget windows begin at midnight."
    )
    max_internal_user_budget: UsdSetting | None = setting(
        None, yaml_path="litellm_settings.max_internal_user_budget", says="max_budget of new internal users, USD."
    )
    internal_user_budget_duration: DurationText | None = setting(
        None, yaml_path="litellm_settings.internal_user_budget_duration", says="budget_duration of the same."
    )
    default_internal_user_params: DefaultUserParams = setting(
        DefaultUserParams(),
        yaml_path="litellm_settings.default_internal_user_params",
        says="Fills what is missing for new users.",
    )
    model_names: ModelNames = setting((), yaml_path="model_list", says="The names that may be called.")
    password_length_min: Annotated[int, BeforeValidator(int), Field(ge=8, le=64)] = setting(
        15, yaml_path="general_settings.password_policy_min_length", says="Characters a password must have."
    )
