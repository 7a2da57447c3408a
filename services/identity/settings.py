"""Identity's settings."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from services.identity.events import Role
from shared.durations import DurationText, parse_duration
from shared.settings import ModelNames, SecretKey, Settings, UsdSetting, WebAddress, Zone, setting
from shared.values import LimitInt

# A gateway asks for a session in use every half minute, and half a minute may pass before that is written down.
IDLE_MIN = timedelta(minutes=1)
# Every failure that counts is kept for the window: so many are not dear, and more are no limit.
FAILED_LOGINS_MAX, SECONDS_MAX = 10_000, 86_400


def _an_idle_time(text: str) -> str:
    some_day = datetime(2026, 7, 1, tzinfo=UTC)
    if parse_duration(text).after(some_day) < some_day + IDLE_MIN:
        raise ValueError("is too short (at least 1m)")
    return text


def _no_flag(value: object) -> object:
    if isinstance(value, bool):  # which pydantic takes for 0 or 1
        raise PydanticCustomError("int_type", "is not an integer")
    return value


FailedLogins = Annotated[int, BeforeValidator(_no_flag), Field(ge=0, le=FAILED_LOGINS_MAX)]
Seconds = Annotated[int, BeforeValidator(_no_flag), Field(ge=0, le=SECONDS_MAX)]


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
    session_idle_timeout: Annotated[DurationText, AfterValidator(_an_idle_time)] = setting(
        "8h",
        yaml_path="keystead_settings.session_idle_timeout",
        says="How long a session lives unused: at least 1m.",
    )
    failed_logins_max_per_source: FailedLogins = setting(
        100,
        yaml_path="general_settings.max_failed_login_attempts_per_source",
        says="Log-ins that may fail in the window below from one address (of IPv6: one /64), 10 of them at one name;"
        " above that nobody is heard from there. 0: the throttle is off.",
    )
    failed_login_window_seconds: Seconds = setting(
        60,
        yaml_path="general_settings.failed_login_window_seconds",
        says="How long a failed log-in counts. 0: the throttle is off.",
    )
    failed_login_block_seconds: Seconds = setting(
        300,
        yaml_path="general_settings.failed_login_block_seconds",
        says="How long nobody is heard from there. 0: the throttle is off.",
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
