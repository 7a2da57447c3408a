"""Settings: one file in LiteLLM's names, the environment over it, and every fault told at once, at its place (§4)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.durations import DurationText
from shared.keyring import Keyring
from shared.settings import (
    HARMLESS,
    REFUSED,
    ModelNames,
    SecretKey,
    Settings,
    SettingsInvalid,
    UsdSetting,
    WebAddress,
    Zone,
    load,
    read_file,
    setting,
)

SECRET_KEY = "a2V5c3RlYWQncyB0ZXN0cyBhcmUgbm8gc2VjcmV0IGF0IGFsbA=="


class UpperBounds(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    max_budget: UsdSetting | None = None
    duration: DurationText | None = None


class KeysSettings(Settings):
    upper_bounds: UpperBounds = setting(
        UpperBounds(), yaml_path="litellm_settings.upperbound_key_generate_params", says="The most."
    )
    timezone: Zone = setting(ZoneInfo("UTC"), yaml_path="litellm_settings.timezone", says="Where midnight is.")
    model_names: ModelNames = setting((), yaml_path="model_list", says="The names.")
    retries: int = setting(2, yaml_path="router_settings.num_retries", env=("RETRIES",), says="How often.")


class EdgeSettings(Settings):
    master_key: str = setting(
        yaml_path="general_settings.master_key", env=("KEYSTEAD_MASTER_KEY", "LITELLM_MASTER_KEY"), says="The key."
    )
    keyring: SecretKey | None = setting(None, env=("KEYSTEAD_SECRET_KEY",), says="Seals.")
    base_url: WebAddress = setting("http://127.0.0.1:4000", env=("PROXY_BASE_URL",), says="Of links.")
    timezone: Zone = setting(ZoneInfo("UTC"), yaml_path="litellm_settings.timezone", says="The same one.")
    max_budget: UsdSetting | None = setting(None, yaml_path="litellm_settings.max_internal_user_budget", says="USD.")
    strict: bool = setting(True, yaml_path="general_settings.strict", says="Whether.")


def loaded(content: Mapping[str, Any] | None = None, **environment: str) -> tuple[Any, Any]:
    """Keys' and the edge's settings; the edge's one required setting is given."""
    given = {"KEYSTEAD_MASTER_KEY": "sk-a-master-key", **environment}
    settings, _ = load({"keys": KeysSettings, "edge": EdgeSettings}, content or {}, given)
    return settings["keys"], settings["edge"]


def faults(content: Mapping[str, Any], **environment: str) -> list[str]:
    with pytest.raises(SettingsInvalid) as invalid:
        loaded(content, **environment)
    return invalid.value.faults


def in_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Where a value comes from


def test_what_is_not_set_has_its_default() -> None:
    keys, edge = loaded()
    assert (keys.retries, keys.timezone.key, keys.upper_bounds, edge.max_budget) == (2, "UTC", UpperBounds(), None)


def test_the_file_goes_over_the_default_and_the_environment_over_the_file() -> None:
    content = {"router_settings": {"num_retries": 5}}
    assert loaded(content)[0].retries == 5
    assert loaded(content, RETRIES="7")[0].retries == 7


def test_keysteads_name_goes_before_its_alias_and_both_before_the_file() -> None:
    content = {"general_settings": {"master_key": "sk-file"}}
    only_edge = {"edge": EdgeSettings}
    by_alias, _ = load(only_edge, content, {"LITELLM_MASTER_KEY": "sk-alias"})
    by_name, _ = load(only_edge, content, {"LITELLM_MASTER_KEY": "sk-alias", "KEYSTEAD_MASTER_KEY": "sk-name"})
    by_file, _ = load(only_edge, content, {})
    assert [each["edge"].master_key for each in (by_alias, by_name, by_file)] == ["sk-alias", "sk-name", "sk-file"]


def test_a_variable_of_the_environment_can_be_named_anywhere_in_the_file() -> None:
    content = {
        "model_list": [{"model_name": "os.environ/MODEL"}],
        "litellm_settings": {"upperbound_key_generate_params": {"duration": "os.environ/LIFE"}},
    }
    keys, _ = loaded(content, MODEL="fast", LIFE="30d")
    assert (keys.model_names, keys.upper_bounds.duration) == (("fast",), "30d")


def test_only_a_whole_value_names_a_variable() -> None:
    content = {"general_settings": {"master_key": "the os.environ/NAME"}}
    settings, _ = load({"edge": EdgeSettings}, content, {"NAME": "x"})
    assert settings["edge"].master_key == "the os.environ/NAME"


def test_the_file_may_give_variables_for_those_not_set() -> None:
    content = {
        "environment_variables": {"RETRIES": 7, "LIFE": "30d"},
        "litellm_settings": {"upperbound_key_generate_params": {"duration": "os.environ/LIFE"}},
    }
    keys, _ = loaded(content, RETRIES="9")
    assert (keys.retries, keys.upper_bounds.duration) == (9, "30d")


def test_the_real_environment_is_read_if_no_other_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTEAD_MASTER_KEY", "sk-real")
    settings, _ = load({"edge": EdgeSettings}, {})
    assert settings["edge"].master_key == "sk-real"


def test_settings_never_change() -> None:
    keys, _ = loaded()
    with pytest.raises(ValidationError):
        keys.retries = 5


# Values


def test_money_is_written_in_usd_and_kept_exactly() -> None:
    for written, nano_usd in [(0.1, 100_000_000), ("0.000000001", 1), (5, 5_000_000_000), ("", None), (None, None)]:
        content = {"litellm_settings": {"max_internal_user_budget": written}}
        assert loaded(content)[1].max_budget == nano_usd


def test_names_of_models_are_those_of_the_list_each_once() -> None:
    content = {"model_list": [{"model_name": "a"}, {"model_name": "b"}, {"model_name": "a"}, {"other": 1}, "c", None]}
    assert loaded(content)[0].model_names == ("a", "b")


def test_an_address_loses_its_last_slash() -> None:
    assert (
        loaded(PROXY_BASE_URL="https://keystead.example.com/base/")[1].base_url == "https://keystead.example.com/base"
    )


def test_a_zone_is_an_iana_name() -> None:
    assert loaded({"litellm_settings": {"timezone": "Europe/Berlin"}})[0].timezone == ZoneInfo("Europe/Berlin")


def test_the_secret_key_is_a_keyring_from_here_on() -> None:
    assert isinstance(loaded(KEYSTEAD_SECRET_KEY=SECRET_KEY)[1].keyring, Keyring)


# Faults


def test_the_contracts_example_is_said_word_for_word() -> None:
    assert faults({"litellm_settings": {"upperbound_key_generate_params": {"duration": "30x"}}}) == [
        'litellm_settings.upperbound_key_generate_params.duration: "30x" is not a duration'
        " (30s, 15m, 12h, 30d, 1w, 1mo, 1y)"
    ]


def test_every_fault_is_told_at_once_each_on_a_line_of_its_own() -> None:
    content = {
        "litellm_settings": {
            "timezone": "Mars/Olympus",
            "max_internal_user_budget": -1,
            "upperbound_key_generate_params": {"duration": "30x", "max_budgt": 5},
            "nonsense": True,
        },
        "router_settings": {"num_retries": "often"},
        "general_settings": {"master_key": "os.environ/NOT_SET", "allowed_ips": ["10.0.0.1"]},
        "nonsense": {},
    }
    with pytest.raises(SettingsInvalid) as invalid:
        load({"keys": KeysSettings, "edge": EdgeSettings}, content, {})
    places = [fault.partition(":")[0] for fault in invalid.value.faults]
    assert places == sorted(places)
    assert set(places) >= {
        "litellm_settings.timezone",
        "litellm_settings.max_internal_user_budget",
        "litellm_settings.upperbound_key_generate_params.duration",
        "litellm_settings.upperbound_key_generate_params.max_budgt",
        "litellm_settings.nonsense",
        "router_settings.num_retries",
        "general_settings.master_key",
        "general_settings.allowed_ips",
        "nonsense",
    }
    assert str(invalid.value).count("\n") == len(places) - 1


def test_a_fault_that_two_services_meet_is_told_once() -> None:
    (fault,) = faults({"litellm_settings": {"timezone": "Mars/Olympus"}})
    assert fault == 'litellm_settings.timezone: "Mars/Olympus" is not the name of a time zone (Europe/Berlin, UTC)'


@pytest.mark.parametrize(
    ("content", "environment", "fault"),
    [
        ({"router_settings": {"num_retries": "often"}}, {}, 'router_settings.num_retries: "often" is not an integer'),
        ({"router_settings": {"num_retries": 1.5}}, {}, 'router_settings.num_retries: "1.5" is not an integer'),
        ({"general_settings": {"strict": "perhaps"}}, {}, 'general_settings.strict: "perhaps" is not true or false'),
        ({}, {"RETRIES": "often"}, 'RETRIES: "often" is not an integer'),
        ({"router_settings": {"num_retries": 3}}, {"RETRIES": "often"}, 'RETRIES: "often" is not an integer'),
        ({}, {"PROXY_BASE_URL": "keystead"}, 'PROXY_BASE_URL: "keystead" is not an absolute address'),
        ({"litellm_settings": {"upperbound_key_generate_params": 5}}, {}, "litellm_settings.upperbound_key_gener"),
    ],
)
def test_a_fault_names_its_place_its_value_and_what_is_wrong(
    content: dict[str, Any], environment: dict[str, str], fault: str
) -> None:
    (told,) = faults(content, **environment)
    assert told.startswith(fault)


@pytest.mark.parametrize("zone", ["Mars", "Europe", "", "../UTC", "/etc/localtime", "x" * 5000, "UTC\0", 5, "é"])
def test_what_is_no_zone_is_a_fault_whatever_it_is(zone: object) -> None:
    (fault,) = faults({"litellm_settings": {"timezone": zone}})
    assert fault.startswith("litellm_settings.timezone: ")
    assert "is not the name of a time zone" in fault


def test_a_long_or_broken_value_is_shown_on_one_line_and_cut() -> None:
    (fault,) = faults({"litellm_settings": {"timezone": "x\n" * 5000}})
    assert "\n" not in fault
    assert len(fault) < 400


def test_a_setting_that_is_missing_is_said_to_be_required() -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        load({"edge": EdgeSettings}, {}, {})
    assert invalid.value.faults == ["general_settings.master_key: is required"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"litelm_settings": {}}, "litelm_settings: is no section (did you mean litellm_settings?)"),
        (
            {"router_settings": {"num_retrys": 1}},
            "router_settings.num_retrys: is not a setting (did you mean num_retries?)",
        ),
        ({"router_settings": {"xyz": 1}}, "router_settings.xyz: is not a setting (known are num_retries)"),
        ({"router_settings": {5: 1}}, "router_settings.5: is not a setting (known are num_retries)"),
        (
            {"litellm_settings": {"upperbound_key_generate_params": {"durration": "1d"}}},
            "litellm_settings.upperbound_key_generate_params.durration: is not a setting (did you mean duration?)",
        ),
        ({"router_settings": [1]}, "router_settings: is not a mapping of settings"),
        ({"router_settings": "num_retries"}, "router_settings: is not a mapping of settings"),
    ],
)
def test_an_unknown_name_is_a_fault_that_offers_the_nearest(content: dict[str, Any], fault: str) -> None:
    assert faults(content) == [fault]


def test_an_empty_section_is_none() -> None:
    loaded({"router_settings": None, "litellm_settings": {}, "environment_variables": None})


def test_a_variable_that_is_not_set_is_a_fault_at_its_place() -> None:
    content = {
        "model_list": [{"model_name": "a"}, {"model_name": "b", "litellm_params": {"api_key": "os.environ/KEY"}}],
        "general_settings": {"strict": "os.environ/"},
    }
    assert faults(content) == [
        'general_settings.strict: "os.environ/" names a variable that is not set',
        'model_list[1].litellm_params.api_key: "os.environ/KEY" names a variable that is not set',
    ]


# Secrets


@pytest.mark.parametrize(
    ("content", "environment"),
    [
        ({"general_settings": {"master_key": ["sk-1234567890"]}}, {}),
        ({"general_settings": {"master_key": {"a": "sk-1234567890"}}}, {}),
        ({"general_settings": {"master_key": 1234567890}}, {}),
        ({}, {"KEYSTEAD_SECRET_KEY": "sk-1234567890"}),
        ({}, {"KEYSTEAD_SECRET_KEY": "1234567890"}),
    ],
)
def test_a_secret_is_never_shown(content: dict[str, Any], environment: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid) as invalid:
        load({"edge": EdgeSettings}, content, {} if content else {"KEYSTEAD_MASTER_KEY": "sk-x", **environment})
    assert "1234567890" not in str(invalid.value)
    assert len(invalid.value.faults) == 1


def test_settings_can_be_shown_without_their_keyring() -> None:
    _, edge = loaded(KEYSTEAD_SECRET_KEY=SECRET_KEY)
    assert SECRET_KEY not in repr(edge)


# What LiteLLM has and Keystead lacks


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_can_be_left_out_without_harm_is_a_warning(name: str) -> None:
    content = {"litellm_settings": {name: True}}
    _, warnings = load({"keys": KeysSettings}, content, {})
    assert warnings == [f"litellm_settings.{name}: Keystead has no such thing; it is left out"]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_leave_something_open_stops_the_start(name: str) -> None:
    (fault,) = faults({"general_settings": {name: True}})
    assert fault.startswith(f"general_settings.{name}: this version of Keystead does not have it")


def test_nothing_is_both_harmless_and_refused() -> None:
    assert not HARMLESS & REFUSED


@pytest.mark.parametrize("name", ["JWT_PUBLIC_KEY_URL", "GENERIC_CLIENT_ID", "ALLOWED_EMAIL_DOMAINS"])
def test_a_variable_of_a_later_version_stops_the_start(name: str) -> None:
    assert faults({}, **{name: "x"}) == [f"{name}: is set, and this version of Keystead does not have it yet"]
    loaded({}, **{name: ""})


def test_mails_with_keys_are_not_possible() -> None:
    assert "mails never carry a key" in faults({}, EMAIL_INCLUDE_API_KEY="True")[0]
    loaded({}, EMAIL_INCLUDE_API_KEY="false")


# The file


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    text = "# for ada\nlitellm_settings: &all\n  timezone: Europe/Berlin\nrouter_settings: {num_retries: 5}\n"
    expected = {"litellm_settings": {"timezone": "Europe/Berlin"}, "router_settings": {"num_retries": 5}}
    assert read_file(in_file(tmp_path, text)) == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert read_file(in_file(tmp_path, text)) == {}


def test_no_file_sets_nothing() -> None:
    assert read_file(None) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is there twice"),
        ("litellm_settings:\n  timezone: UTC\n  timezone: UTC\n", "line 3: 'timezone' is there twice"),
        ("model_list:\n- model_name: a\n  model_name: b\n", "line 3: 'model_name' is there twice"),
        ("a: {b: {c: 1, c: 2}}\n", "line 1: 'c' is there twice"),
    ],
)
def test_a_name_that_is_there_twice_is_a_fault_at_any_depth(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsInvalid, match=fault):
        read_file(in_file(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b"a: [1",
        b"a: *nobody",
        b"\t- a",
        b"[a]: b",
        b"{a: 1}: b",
        b"? [a]\n: b",
        b"a: !!python/object/apply:os.system ['true']",
        b"a: 1\n---\nb: 2\n",
        b"- a\n- b\n",
        b"just a text",
        b"5",
    ],
)
def test_what_is_no_mapping_of_sections_in_yaml_is_a_fault_that_names_the_file(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(SettingsInvalid, match=r"config\.yaml: is not ") as invalid:
        read_file(in_file(tmp_path, text))
    assert "\n" not in str(invalid.value)


def test_a_file_that_is_not_there_is_a_fault_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"nowhere\.yaml: can't be read \(No such file"):
        read_file(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingsInvalid, match="can't be read"):
        read_file(tmp_path)
