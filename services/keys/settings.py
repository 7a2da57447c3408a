"""Keys' settings."""

from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from shared.durations import DurationText
from shared.settings import ModelNames, SecretKey, Settings, UsdSetting, Zone, setting
from shared.values import LimitInt


class UpperBounds(BaseModel):
    """The most that any key may get (§4.2)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    max_budget: UsdSetting | None = None
    budget_duration: DurationText | None = None
    duration: DurationText | None = None
    max_parallel_requests: LimitInt | None = None
    tpm_limit: LimitInt | None = None
    rpm_limit: LimitInt | None = None


class KeysSettings(Settings):
    """What keys is told."""

    keyring: SecretKey = setting(env=("KEYSTEAD_SECRET_KEY",), says="Seals what must be sealed: ≥ 32 bytes, base64.")
    upperbound_key_generate_params: UpperBounds = setting(
        UpperBounds(),
        yaml_path="litellm_settings.upperbound_key_generate_params",
        says="The most that any key may get: more is refused, nothing said is set to it.",
    )
    timezone: Zone = setting(
        ZoneInfo("UTC"), yaml_path="litellm_settings.timezone", says="Where budget windows begin at midnight."
    )
    model_names: ModelNames = setting((), yaml_path="model_list", says="The names that may be called.")
