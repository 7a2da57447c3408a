"""What an installation is told, put together: the command line, the environment, the file, and what `up` makes."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keystead.app import PROCESS, SERVICES, load_settings
from keystead.settings import ProcessSettings
from shared.settings import SettingsInvalid, given_variables, variables_of

WELL_KNOWN_KEYS = frozenset({"sk-1234", "sk-12345", "sk-123456", "sk-1234567890", "sk-master-key", "sk-keystead"})
MASTER_KEY_LENGTH_MIN = 20
MASTER_KEY_VARIABLES = ("KEYSTEAD_MASTER_KEY", "LITELLM_MASTER_KEY")
# Every variable that a setting is read from, and each service's own addresses.
VARIABLES = variables_of(ProcessSettings, *(service.settings for service in SERVICES)) | {
    f"KEYSTEAD_{service.name.upper()}_{kind}_URL" for service in SERVICES for kind in ("POSTGRES", "NATS")
}
RATES = ("tpm_limit", "rpm_limit", "max_parallel_requests")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where nobody gave it."""

    secret_key: str = field(repr=False)
    master_key: str = field(repr=False)
    base_url: str
    api_url: str = ""


# Stand for what is not made yet, so that everything can be checked before anything is made.
UNMADE = Defaults(
    secret_key="MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",  # noqa: S106
    master_key="sk-stands-for-the-one-to-be-made",
    base_url="http://127.0.0.1",
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """All settings, and what the start should warn of."""

    process: ProcessSettings
    services: Mapping[str, Any]
    warnings: list[str]
    variables: Mapping[str, str] = field(repr=False)

    def own_urls(self, kind: str) -> dict[str, str]:
        """The services that log in elsewhere or as another (``KEYSTEAD_<SERVICE>_<kind>_URL``), and where."""
        return self._urls(f"_{kind}")

    def service_urls(self) -> dict[str, str]:
        """Where services that are other processes listen (``KEYSTEAD_<SERVICE>_URL``)."""
        return self._urls("")

    def _urls(self, kind: str) -> dict[str, str]:
        names = {service.name: f"KEYSTEAD_{service.name.upper()}{kind}_URL" for service in SERVICES}
        return {service: self.variables[name] for service, name in names.items() if name in self.variables}


def configuration(content: Mapping[str, Any], environment: Mapping[str, str], defaults: Defaults) -> Configuration:
    """The settings of the process and of every service. Raises ``SettingsInvalid`` with every fault.

    An empty variable is one that is not set: that is how a compose file leaves one out.
    """
    environment = _with_files({name: value for name, value in environment.items() if value})
    settings, warnings = load_settings(_filled(content, defaults), environment)
    process: ProcessSettings = settings.pop(PROCESS)
    variables = {**given_variables(content), **environment}
    warnings += _check_master_key(process, variables)
    return Configuration(process, settings, warnings + _unenforced_rates(settings), variables)


def _with_files(environment: Mapping[str, str]) -> dict[str, str]:
    """A variable ``<NAME>_FILE`` gives the file that holds the value: how containers are given secrets.

    Raises ``SettingsInvalid``.
    """
    given, faults = dict(environment), []
    for name, path in environment.items():
        target = name.removesuffix("_FILE")
        if target == name or target not in VARIABLES:
            continue
        if target in environment:
            faults.append(f"{name}: {target} is given as well, and only one can be meant")
        try:
            given[target] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            faults.append(f"{name}: {path} can't be read ({getattr(fault, 'strerror', None) or 'is not UTF-8'})")
    if faults:
        raise SettingsInvalid(sorted(faults))
    return {name: value for name, value in given.items() if value}


def _filled(content: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """The file with the defaults in it, over which the environment goes."""
    variables = {"KEYSTEAD_SECRET_KEY": defaults.secret_key, "PROXY_BASE_URL": defaults.base_url}
    if defaults.api_url:
        variables["KEYSTEAD_API_URL"] = defaults.api_url
    return {
        **content,
        "general_settings": _over({"master_key": defaults.master_key}, content.get("general_settings")),
        "environment_variables": _over(variables, content.get("environment_variables")),
    }


def _over(defaults: Mapping[str, Any], section: object) -> object:
    if section is None:
        return defaults
    if not isinstance(section, dict):
        return section
    return {**section, **{name: default for name, default in defaults.items() if section.get(name) in (None, "")}}


def _check_master_key(process: ProcessSettings, variables: Mapping[str, str]) -> list[str]:
    """Warnings; raises ``SettingsInvalid`` for a key that must not guard an address others can reach (§4.3)."""
    key = process.master_key
    place = next((name for name in MASTER_KEY_VARIABLES if variables.get(name)), "general_settings.master_key")
    if not key.startswith("sk-"):
        raise SettingsInvalid([f'{place}: does not start with "sk-"'])
    if len(key) >= MASTER_KEY_LENGTH_MIN and key not in WELL_KNOWN_KEYS:
        return []
    weak = f"is well known or under {MASTER_KEY_LENGTH_MIN} characters"
    if not process.permit_weak_master_key and not _is_loopback(process.host):
        raise SettingsInvalid(
            [
                f"{place}: {weak}, and others can reach {process.host}"
                " (a longer one, or general_settings.dangerously_permit_weak_or_unset_master_key: true)"
            ]
        )
    return [f"{place}: {weak}: whoever can reach {process.host} may guess it"]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unenforced_rates(settings: Mapping[str, Any]) -> list[str]:
    """Rates are kept and shown, and not enforced yet: that must not be found out in production."""
    places = {
        "litellm_settings.default_internal_user_params": settings["identity"].default_internal_user_params,
        "litellm_settings.upperbound_key_generate_params": settings["keys"].upperbound_key_generate_params,
    }
    return [
        f"{path}.{name}: is kept and shown, and not enforced yet in this version"
        for path, params in places.items()
        for name in RATES
        if getattr(params, name) is not None
    ]
