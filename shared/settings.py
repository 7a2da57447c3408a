"""Settings: one YAML file in LiteLLM's names, the environment over it, and every fault told at once (contract §4)."""

import difflib
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)
from pydantic.fields import FieldInfo

from shared.keyring import Keyring
from shared.money import parse_usd

SECTIONS = (
    "model_list",
    "litellm_settings",
    "general_settings",
    "router_settings",
    "keystead_settings",
    "environment_variables",
)
REFERENCE = "os.environ/"
SHOWN_MAX = 200  # characters of a wrong value

# LiteLLM's, and Keystead lacks them: leaving these out can open nothing, so the start only says so (§4).
HARMLESS = frozenset(
    "set_verbose callbacks success_callback failure_callback drop_params alerting store_model_in_db"
    " database_connection_pool_limit proxy_batch_write_at proxy_budget_rescheduler_min_time"
    " proxy_budget_rescheduler_max_time disable_spend_logs store_prompts_in_spend_logs telemetry disable_cooldowns"
    " background_health_checks default_team_settings json_logs health_check_interval".split()
)
# … and these would leave open what the operator believes closed, or wait for a later version: the start stops.
REFUSED = frozenset(
    "custom_auth custom_key_generate custom_sso allowed_ips allowed_routes admin_only_routes public_routes guardrails"
    " enforced_params pass_through_endpoints max_end_user_budget fallbacks default_fallbacks context_window_fallbacks"
    " content_policy_fallbacks key_generation_settings default_key_generate_params default_team_params max_budget"
    " budget_duration max_ui_session_budget cache cache_params enable_jwt_auth litellm_jwtauth"
    " apply_user_budget_to_team_keys default_team_disabled disable_password_login_when_sso_enabled"
    " disable_env_credential_login webhooks spend_row_retention model_group_alias teams".split()
)
NOT_YET = "this version of Keystead does not have it, and leaving it out could open something"
REFUSED_IN_ENVIRONMENT = (
    "JWT_PUBLIC_KEY_URL",
    "GENERIC_CLIENT_ID",
    "GOOGLE_CLIENT_ID",
    "MICROSOFT_CLIENT_ID",
    "ALLOWED_EMAIL_DOMAINS",
    "LITELLM_KEY_ROTATION_GRACE_PERIOD",
)

# pydantic's kinds of faults, said as the contract says them.
WRONG = {
    "bool_parsing": "is not true or false",
    "bool_type": "is not true or false",
    "enum": "is not one of these ({expected})",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "greater_than": "is out of range (above {gt})",
    "greater_than_equal": "is out of range (at least {ge})",
    "int_from_float": "is not an integer",
    "int_parsing": "is not an integer",
    "int_type": "is not an integer",
    "less_than": "is out of range (below {lt})",
    "less_than_equal": "is out of range (at most {le})",
    "list_type": "is not a list",
    "literal_error": "is not one of these ({expected})",
    "model_type": "is not a mapping of settings",
    "string_type": "is not text (put it in quotes)",
    "tuple_type": "is not a list",
}


class Settings(BaseModel):
    """The base of each service's settings class; every field says where it is read from by ``setting``."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, arbitrary_types_allowed=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Without secrets: who prints settings means no harm."""
        for name, value in super().__repr_args__():
            yield name, "…" if value and _secret(str(name)) else value


def setting(default: Any = ..., *, yaml_path: str = "", env: Sequence[str] = (), says: str) -> Any:
    """A field read from the first of ``env`` that is set, else from ``yaml_path`` (``section.name``)."""
    choices: list[str | AliasPath] = list(env)
    if yaml_path:
        section, _, name = yaml_path.partition(".")
        choices.append(AliasPath(section, name) if name else section)
    return Field(default, validation_alias=AliasChoices(*choices), description=says)


def _usd(value: object) -> int | None:
    return None if value in (None, "") else parse_usd(value)


def _web_address(value: object) -> str:
    try:
        url = urlsplit(str(value))
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid or url.query or url.fragment or re.search(r"[\s@]", str(value)):
        raise ValueError("is not an absolute address (https://keystead.example.com)")
    return str(value).rstrip("/")


def _names_of_models(value: object) -> object:
    """The names in ``model_list``; whether its entries are right is the gateway's to say."""
    entries = value if isinstance(value, list) else []
    names = [entry.get("model_name") for entry in entries if isinstance(entry, dict)]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def _zone(value: object) -> object:
    try:
        return ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError, OSError) as fault:  # a folder of zones is no zone
        raise ValueError("is not the name of a time zone (Europe/Berlin, UTC)") from fault


UsdSetting = Annotated[int | None, BeforeValidator(_usd)]  # nano-USD, written in USD
ModelNames = Annotated[tuple[str, ...], BeforeValidator(_names_of_models)]
WebAddress = Annotated[str, BeforeValidator(_web_address)]  # without the last slash
Zone = Annotated[ZoneInfo, PlainValidator(_zone)]
SecretKey = Annotated[
    Keyring, PlainValidator(lambda value: value if isinstance(value, Keyring) else Keyring(str(value)))
]


class SettingsInvalid(Exception):
    """Every fault of the configuration, one a line."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class _StrictLoader(yaml.SafeLoader):
    """YAML without a name given twice in one mapping."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            continue  # the loader itself says what is wrong with that
        if key in seen:
            raise SettingsInvalid([f"line {key_node.start_mark.line + 1}: {key!r} is there twice"])
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_file(path: Path | None) -> dict[str, Any]:
    """The configuration file as it stands; raises ``SettingsInvalid`` if it can't be read as one."""
    if path is None:
        return {}
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as fault:
        raise SettingsInvalid([f"{path}: can't be read ({fault.strerror})"]) from fault
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise SettingsInvalid([f"{path}: is not YAML ({' '.join(str(fault).split())})"]) from fault
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsInvalid([f"{path}: is not a mapping of sections"])
    return content


def load(
    classes: Mapping[str, type[BaseModel]], content: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Each service's settings by its name, and the start's warnings. Raises ``SettingsInvalid`` with every fault."""
    faults: list[str] = []
    known = _known_names(classes.values())
    environment = {**given_variables(content), **(os.environ if environment is None else environment)}
    resolved = _resolve(dict(content), environment, "", faults)
    unset = {fault.partition(": ")[0] for fault in faults}
    warnings = list(_check_names(resolved, known, faults))
    faults += [
        f"{name}: is set, and this version of Keystead does not have it yet"
        for name in REFUSED_IN_ENVIRONMENT
        if environment.get(name)
    ]
    if environment.get("EMAIL_INCLUDE_API_KEY", "").lower() == "true":
        faults.append('EMAIL_INCLUDE_API_KEY: "true" is not possible: mails never carry a key (D30)')
    merged = {**resolved, **environment}
    settings: dict[str, Any] = {}
    for service, settings_class in classes.items():
        try:
            settings[service] = settings_class.model_validate(merged)
        except ValidationError as invalid:
            found = [_sentence(error, settings_class, merged) for error in invalid.errors(include_url=False)]
            faults += [fault for fault in found if fault.partition(": ")[0] not in unset]
    if faults:
        raise SettingsInvalid(sorted(set(faults)))
    return settings, warnings


def variables_of(*classes: type[BaseModel]) -> frozenset[str]:
    """The names of all variables that these settings are read from."""
    infos = [info for each in classes for info in each.model_fields.values()]
    aliases = [info.validation_alias for info in infos if isinstance(info.validation_alias, AliasChoices)]
    return frozenset(name for alias in aliases for name in alias.choices if isinstance(name, str) and name.isupper())


def given_variables(content: Mapping[str, Any]) -> dict[str, str]:
    """What the file's section ``environment_variables`` gives for those not set."""
    given = content.get("environment_variables") or {}
    return {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}


def _resolve(value: Any, environment: Mapping[str, str], path: str, faults: list[str]) -> Any:
    """``value`` with every ``os.environ/NAME`` in it replaced by that variable."""
    if isinstance(value, dict):
        return {key: _resolve(item, environment, _join(path, key), faults) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, environment, f"{path}[{number}]", faults) for number, item in enumerate(value)]
    if isinstance(value, str) and value.startswith(REFERENCE):
        name = value.removeprefix(REFERENCE)
        if name not in environment:
            faults.append(f'{path}: "{value}" names a variable that is not set')
            return None
        return environment[name]
    return value


def _known_names(classes: Iterable[type[BaseModel]]) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {section: set() for section in SECTIONS}
    for settings_class in classes:
        for info in settings_class.model_fields.values():
            for section, name in _yaml_paths(info):
                known[section].add(name)
    return known


def _yaml_paths(info: FieldInfo) -> Iterator[tuple[str, str]]:
    choices = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else []
    for choice in choices:
        if isinstance(choice, AliasPath) and len(choice.path) > 1:
            yield str(choice.path[0]), str(choice.path[1])


def _check_names(content: Mapping[str, Any], known: Mapping[str, set[str]], faults: list[str]) -> Iterator[str]:
    for section, names in content.items():
        if section not in SECTIONS:
            faults.append(f"{section}: is no section ({_nearest(str(section), SECTIONS)})")
        elif section in ("model_list", "environment_variables") or names is None:
            continue
        elif not isinstance(names, dict):
            faults.append(f"{section}: is not a mapping of settings")
        else:
            for name in names:
                path = f"{section}.{name}"
                if name in known[section]:
                    continue
                if name in HARMLESS:
                    yield f"{path}: Keystead has no such thing; it is left out"
                elif name in REFUSED:
                    faults.append(f"{path}: {NOT_YET}")
                else:
                    faults.append(f"{path}: is not a setting ({_nearest(str(name), known[section])})")


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=1)
    return f"did you mean {near[0]}?" if near else "known are " + ", ".join(sorted(names))


def _sentence(error: Any, settings_class: type[BaseModel], merged: Mapping[str, Any]) -> str:
    """One fault: the path in the YAML (or the variable), the value, what is wrong (what is accepted)."""
    path, value = _place(tuple(error["loc"]), settings_class, merged)
    shown = "" if value is None or _secret(path) else f'"{" ".join(str(value).split())[:SHOWN_MAX]}" '
    if error["type"] == "missing":
        return f"{path}: is required"
    if error["type"] == "extra_forbidden":
        return f"{path}: {_unknown(tuple(error['loc']), settings_class)}"
    if error["type"] in WRONG:
        return f"{path}: {shown}{WRONG[error['type']].format(**error.get('ctx', {}))}"
    message = re.sub(r"^Value error, (not )?", lambda match: "is not " if match[1] else "", str(error["msg"]))
    return f"{path}: {shown}{message if message.startswith('is ') else 'is wrong: ' + message}"


def _unknown(loc: tuple[Any, ...], settings_class: type[BaseModel]) -> str:
    """What to say of a name that a nested model does not have."""
    if loc[-1] in REFUSED:
        return NOT_YET
    for info in settings_class.model_fields.values():
        aliases = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else []
        paths = [alias.path for alias in aliases if isinstance(alias, AliasPath)]
        if list(loc[:-1]) in paths and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            return f"is not a setting ({_nearest(str(loc[-1]), info.annotation.model_fields)})"
    return "is not a setting"


def _place(loc: tuple[Any, ...], settings_class: type[BaseModel], merged: Mapping[str, Any]) -> tuple[str, Any]:
    """Where a fault's value came from. pydantic names the first alias; the one that was read is the first present."""
    for info in settings_class.model_fields.values():
        choices = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else []
        aliases = [tuple(c.path) if isinstance(c, AliasPath) else (c,) for c in choices]
        for alias in aliases:
            if loc[: len(alias)] != alias:
                continue
            rest = loc[len(alias) :]
            for read in aliases:
                if _at(merged, read) is not None:
                    value = _at(merged, (*read, *rest))
                    return _path((*read, *rest)), None if isinstance(value, dict | list) else value
            yaml_alias = next((a for a in aliases if len(a) > 1), aliases[0])
            return _path((*yaml_alias, *rest)), None
    return _path(loc), None


def _at(value: Any, path: Sequence[Any]) -> Any:
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _path(loc: Sequence[Any]) -> str:
    path = ""
    for part in loc:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, part)
    return path


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _secret(path: str) -> bool:
    """Whether what stands there may be one, by its name; the addresses of servers hold passwords."""
    return bool(re.search(r"(key|password|secret|(database|postgres|nats)_url)(\[\d+\])?$", path, re.IGNORECASE))
