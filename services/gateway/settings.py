"""The gateway's settings."""

import ipaddress
from typing import Annotated

from pydantic import BeforeValidator, Field

from services.gateway.model_list import ModelList
from shared.durations import DurationText
from shared.settings import SecretKey, Settings, WebAddress, setting
from shared.visitor import Network


def _network(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as fault:
        raise ValueError("is not a range of addresses (10.0.0.0/8, fd00::/8)") from fault


class GatewaySettings(Settings):
    """What the gateway is told."""

    keyring: SecretKey = setting(env=("KEYSTEAD_SECRET_KEY",), says="≥ 32 bytes, base64; seals what must be sealed.")
    master_key: str = setting(
        yaml_path="general_settings.master_key",
        env=("KEYSTEAD_MASTER_KEY", "LITELLM_MASTER_KEY"),
        says="The admin's key, from `sk-` on; acts as default_user_id.",
    )
    base_url: WebAddress = setting(
        env=("PROXY_BASE_URL",), says="What links are built from, and where requests by cookie must come from."
    )
    key_header_name: str | None = setting(
        None, yaml_path="general_settings.litellm_key_header_name", says="A further header for the credential."
    )
    max_request_size_mb: Annotated[int, Field(ge=1, le=512)] = setting(
        32, yaml_path="general_settings.max_request_size_mb", says="The largest model call, MiB."
    )
    num_retries: Annotated[int, Field(ge=0, le=10)] = setting(
        2, yaml_path="router_settings.num_retries", says="How many other deployments a call tries."
    )
    default_max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = setting(
        16_384,
        yaml_path="keystead_settings.default_max_output_tokens",
        says="Output maximum of models that have none in file or price table.",
    )
    revocation_bound: DurationText = setting(
        "5s", yaml_path="keystead_settings.revocation_bound", says="How long an unreachable worker may go on, at most."
    )
    disable_user_agent_tags: bool = setting(
        False,
        yaml_path="litellm_settings.disable_add_user_agent_to_request_tags",
        says="Whether the client's product is left out of a call's tags.",
    )
    trusted_proxy_ranges: tuple[Annotated[Network, BeforeValidator(_network)], ...] = setting(
        (), yaml_path="general_settings.trusted_proxy_ranges", says="CIDR ranges whose X-Forwarded-For is believed."
    )
    model_list: ModelList = setting([], yaml_path="model_list", says="The models, and where they are.")

    @property
    def add_user_agent_tags(self) -> bool:
        return not self.disable_user_agent_tags
