"""`model_list` of the configuration: what is taken, what stops the start, and what clients see of it."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from services.gateway.model_list import DEFAULT_API_BASES, DEFAULT_MODEL_LIST, ModelEntry, ModelList
from services.gateway.models import Catalogue, Deployment, in_weighted_order
from services.gateway.pricing import KnownRates, Listed
from tests.support.calls import deployment

MODEL_LIST: TypeAdapter[list[ModelEntry]] = TypeAdapter(ModelList)
LISTED = Listed(((-1, KnownRates(Decimal("0.5"), Decimal("0.25"), None, None)),), 4_096, "9.9")


def listed(provider: str, model: str) -> Listed | None:
    """A price table that knows one model."""
    return LISTED if (provider, model) == ("openai", "gpt-4o") else None


def entry(params: dict[Any, Any] | None = None, info: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"model_name": "gpt", "litellm_params": {"model": "openai/gpt-4o"} | (params or {})}
    return given | ({} if info is None else {"model_info": info}) | others


def catalogue(*entries: dict[str, Any]) -> Catalogue:
    return Catalogue(MODEL_LIST.validate_python(list(entries)), lookup=listed)


def only(*entries: dict[str, Any]) -> Deployment:
    (deployment,) = catalogue(*entries).deployments
    return deployment


def faults(*entries: object) -> list[tuple[str, str]]:
    """Where, and what is wrong."""
    with pytest.raises(ValidationError) as caught:
        MODEL_LIST.validate_python(list(entries))
    return [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in caught.value.errors()]


def test_an_entry_of_two_lines_is_a_deployment() -> None:
    deployment = only(entry())
    assert (deployment.provider, deployment.upstream_model, deployment.model) == ("openai", "gpt-4o", "openai/gpt-4o")
    assert (deployment.api_base, deployment.timeout_seconds, deployment.weight) == ("https://api.openai.com/v1", 600, 1)


def test_a_models_name_may_hold_slashes() -> None:
    deployment = only(entry({"model": "openrouter/anthropic/claude-sonnet-4"}))
    assert (deployment.provider, deployment.upstream_model) == ("openrouter", "anthropic/claude-sonnet-4")


@pytest.mark.parametrize("provider", [name for name, address in DEFAULT_API_BASES.items() if address is not None])
def test_these_providers_need_no_address(provider: str) -> None:
    assert only(entry({"model": f"{provider}/x"})).api_base == DEFAULT_API_BASES[provider]


def test_any_other_provider_needs_an_address_unless_it_is_a_mock() -> None:
    (fault,) = faults(entry({"model": "my-own/x"}))
    assert fault[0] == "0.litellm_params.model"
    assert "is at no known address (api_base" in fault[1]
    assert faults(entry({"model": "azure/x"})) != []
    assert only(entry({"model": "my-own/x", "mock_response": "hi"})).api_base == ""
    assert only(entry({"model": "my-own/x", "api_base": "http://127.0.0.1:9/v1/"})).api_base == "http://127.0.0.1:9/v1"


def test_the_server_of_an_ollama_is_address_enough() -> None:
    assert only(entry({"model": "ollama/l", "api_base": "http://gpu:11434"})).api_base == "http://gpu:11434/v1"
    assert only(entry({"model": "ollama/l", "api_base": "http://gpu/v1"})).api_base == "http://gpu/v1"


def test_everything_that_can_be_said_is_kept() -> None:
    deployment = only(
        entry(
            {
                "api_key": "sk-upstream",
                "api_version": "2026-01-01",
                "organization": "org-1",
                "timeout": 30,
                "weight": "3",
                "temperature": 0.5,
                "max_tokens": 100,
            },
            {"id": "d-1", "max_input_tokens": 1_000, "max_output_tokens": 200, "mode": "chat", "tier": None},
        )
    )
    assert (deployment.api_key, deployment.api_version, deployment.organization) == (
        "sk-upstream",
        "2026-01-01",
        "org-1",
    )
    assert (deployment.timeout_seconds, deployment.weight, deployment.id) == (30, 3, "d-1")
    assert (deployment.max_input_tokens, deployment.max_output_tokens) == (1_000, 200)
    assert deployment.defaults == {"temperature": 0.5, "max_tokens": 100}
    assert deployment.info == {"mode": "chat", "tier": None}


@pytest.mark.parametrize("price", [0.000001, "0.000001", "1e-6", Decimal("0.000001")])
def test_a_price_is_exact_however_yaml_reads_it(price: object) -> None:
    prices = only(entry({"input_cost_per_token": price, "output_cost_per_token": 0})).prices
    assert prices is not None
    assert prices.rates.input_usd == Decimal("0.000001")


@pytest.mark.parametrize("price", [-1, "NaN", "Infinity", float("nan"), True, "cheap", [], 1_001, "1e99"])
def test_what_is_no_price_stops_the_start(price: object) -> None:
    (fault,) = faults(entry({"input_cost_per_token": price}))
    assert fault == ("0.litellm_params.input_cost_per_token", "is no price (USD per token, 0 to 1000)")


@pytest.mark.parametrize(
    ("params", "place", "wrong"),
    [
        ({"model": "gpt-4o"}, "model", "is not provider and name"),
        ({"model": "openai/"}, "model", "is not provider and name"),
        ({"model": 5}, "model", "is not provider and name"),
        ({"model": "openai/*"}, "model", "is a wildcard"),
        ({"model": None}, "model", "is missing"),
        ({"api_base": "api.openai.com"}, "api_base", "is no address"),
        ({"api_base": "ftp://host"}, "api_base", "is no address"),
        ({"api_base": "http://user:secret@host"}, "api_base", "is no address"),
        ({"api_base": "http://host/?a=b"}, "api_base", "is no address"),
        ({"api_base": "http://host:99999"}, "api_base", "is no address"),
        ({"api_base": "http://ho st"}, "api_base", "is no URL"),
        ({"timeout": 0}, "timeout", "is no time-out"),
        ({"timeout": True}, "timeout", "is no time-out"),
        ({"timeout": float("inf")}, "timeout", "is no time-out"),
        ({"weight": 0}, "weight", "is out of range"),
        ({"weight": 1.5}, "weight", "is out of range"),
        ({"organization": "two words"}, "organization", "is nothing that can be sent"),
        ({"mock_response": 5}, "mock_response", "is no string"),
        ({"max_tokens": 0}, "max_tokens", "is no default for calls (max_tokens must be from 1"),
        ({"n": 500}, "n", "is no default for calls"),
        ({"temperature": float("nan")}, "temperature", "is no JSON"),
        ({"stop": {1, 2}}, "stop", "is no JSON"),
    ],
)
def test_a_bad_value_stops_the_start(params: dict[str, Any], place: str, wrong: str) -> None:
    ((path, message),) = faults(entry(params))
    assert path == f"0.litellm_params.{place}"
    assert message.startswith(wrong)


@pytest.mark.parametrize("name", ["", " x", "x" * 256, "a\x00b", "*", "openai/*", "all-proxy-models", 5, None])
def test_a_bad_model_name_stops_the_start(name: object) -> None:
    ((path, message),) = faults(entry(model_name=name))
    assert path == "0.model_name"
    assert message.startswith("is ")


@pytest.mark.parametrize("name", ["", "with space", 7, "new\nline", "x" * 256])
def test_a_bad_id_stops_the_start(name: object) -> None:
    ((path, _),) = faults(entry(info={"id": name}))
    assert path == "0.model_info.id"


@pytest.mark.parametrize(
    ("params", "hint"),
    [
        ({"rpmm": 5}, "is given rpmm, which is not a setting (did you mean rpm?)"),
        ({"temprature": 1}, "is given temprature, which is not a setting (did you mean temperature?)"),
        ({"defaults": {}}, "is given defaults, which is not a setting"),
        ({"stream": True}, "is given stream, which is not a setting"),
        ({"drop_params": True}, "is given drop_params, which is not a setting"),
        ({5: 6}, "is given 5, which is not a setting"),
    ],
)
def test_an_unknown_name_stops_the_start_and_the_nearest_is_told(params: dict[Any, Any], hint: str) -> None:
    ((path, message),) = faults(entry(params))
    assert path == "0.litellm_params"
    assert message.startswith(hint)


@pytest.mark.parametrize("value", [5, "x", [], True])
def test_a_section_that_is_no_mapping_stops_the_start(value: object) -> None:
    assert [path for path, _ in faults(entry(model_info=value))] == ["0.model_info"]
    assert [path for path, _ in faults(entry(litellm_params=value))] == ["0.litellm_params"]
    assert [path for path, _ in faults(value)] == ["0"]
    assert only(entry(model_info=None)).info == {}


def test_every_fault_is_told_at_once() -> None:
    params = {"model": "gpt-4o", "modle": "x", "n": 0, "weight": 0, "api_key": "a b"}
    told = faults(entry(params, {"id": ""}, model_name="*"), entry(model_nam="x", litellm_params=None), "gpt-4o")
    assert sorted(path for path, _ in told) == [
        "0.litellm_params",
        "0.litellm_params.api_key",
        "0.litellm_params.model",
        "0.litellm_params.n",
        "0.litellm_params.weight",
        "0.model_info.id",
        "0.model_name",
        "1",
        "1.litellm_params",
        "2",
    ]


@pytest.mark.parametrize(
    "given",
    [
        entry({"api_key": "sk-hush hush"}),
        entry({"api_key": ["sk-hush"]}),
        entry({"api_key": "sk-hush\n"}),
        entry({"apikey": "sk-hush"}),
        entry({"api_key": "sk-hush", "model": None}),
        entry({"api_key": "sk-hush", "model": "bad"}),
        {"model_name": "gpt", "litellm_param": {"api_key": "sk-hush"}},
        entry({"api_key": "sk-hush", "model": "my-own/x"}),
    ],
)
def test_no_fault_shows_a_credential(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        MODEL_LIST.validate_python([given])
    assert "hush" not in str(caught.value.errors())


def test_a_credential_is_in_no_text_of_a_deployment() -> None:
    given = entry({"api_key": "sk-hush"})
    assert "hush" not in repr(only(given))
    assert "hush" not in repr(MODEL_LIST.validate_python([given]))


def test_limits_that_are_not_enforced_are_a_warning() -> None:
    warned = catalogue(entry(), entry({"rpm": 10, "tpm": None}))
    assert warned.warnings == ("model_list.1.litellm_params.rpm: not enforced",)
    assert warned.deployments[1].defaults == {}


def test_an_id_is_a_hash_of_name_model_and_address() -> None:
    same, again, elsewhere = (
        only(entry(params)).id for params in ({}, {"api_key": "k"}, {"api_base": "http://127.0.0.1/v1"})
    )
    assert same == again != elsewhere
    assert len(same) == 64


def test_two_deployments_alike_have_two_ids() -> None:
    first, second = (found.id for found in catalogue(entry({"api_key": "a"}), entry({"api_key": "b"})).deployments)
    assert first != second
    assert first == only(entry()).id


def test_an_id_given_twice_stops_the_start() -> None:
    told = faults(entry(info={"id": "same"}), entry(), entry(info={"id": "same"}))
    assert [path for path, _ in told] == ["0.model_info.id", "2.model_info.id"]


def test_what_the_file_leaves_out_is_in_the_price_table() -> None:
    found = only(entry({"input_cost_per_token": 2}))
    assert found.prices is not None
    assert (found.prices.rates.input_usd, found.prices.rates.output_usd) == (Decimal(2), Decimal("0.25"))
    assert (found.price_source, found.max_input_tokens, found.max_output_tokens) == ("litellm_params", 4_096, None)
    assert only(entry(info={"max_input_tokens": 10})).max_input_tokens == 10


def test_the_price_table_is_not_asked_for_what_it_is_not_needed_for() -> None:
    def unexpected(provider: str, model: str) -> Listed | None:
        raise AssertionError(f"{provider}/{model}")

    prices = {"input_cost_per_token": 1, "output_cost_per_token": 1}
    given = [*DEFAULT_MODEL_LIST, entry(prices, {"max_input_tokens": 5})]
    assert len(Catalogue(MODEL_LIST.validate_python(given), lookup=unexpected).deployments) == 2


def test_a_model_that_nobody_prices_is_unpriced() -> None:
    assert only(entry({"model": "openai/unheard-of"})).prices is None


def test_a_model_is_found_by_its_name_with_all_its_deployments() -> None:
    models = catalogue(entry(), entry(model_name="other"), entry({"api_key": "b"}))
    assert models.names == ("gpt", "other")
    assert [found.api_key for found in models.find("gpt")] == [None, "b"]
    assert models.find("unknown") == ()


def test_models_are_listed_as_litellm_lists_them() -> None:
    models = catalogue(entry(), entry({"model": "groq/llama"}, model_name="other"), entry())
    assert models.model_rows({"gpt", "other", "gone"}) == [
        {"id": "gpt", "object": "model", "created": 1677610602, "owned_by": "openai"},
        {"id": "other", "object": "model", "created": 1677610602, "owned_by": "groq"},
    ]
    assert [row["id"] for row in models.model_rows(["other"])] == ["other"]


def test_a_models_info_has_no_key_no_address_and_no_nulls() -> None:
    info = {"id": "d-1", "mode": "chat", "tier": None, "db_model": True}
    (row,) = catalogue(entry({"api_key": "sk-hush", "api_base": "https://hidden/v1"}, info)).info_rows({"gpt"})
    assert row == {
        "model_name": "gpt",
        "litellm_params": {
            "model": "openai/gpt-4o",
            "input_cost_per_token": Decimal("0.5"),
            "output_cost_per_token": Decimal("0.25"),
        },
        "model_info": {
            "id": "d-1",
            "mode": "chat",
            "db_model": False,
            "key": "openai/gpt-4o",
            "litellm_provider": "openai",
            "max_input_tokens": 4_096,
            "input_cost_per_token": Decimal("0.5"),
            "output_cost_per_token": Decimal("0.25"),
            "cache_read_input_token_cost": Decimal("0.5"),
            "cache_creation_input_token_cost": Decimal("0.5"),
            "price_source": "genai-prices",
        },
    }


def test_a_free_models_prices_are_shown() -> None:
    free = {"input_cost_per_token": 0, "output_cost_per_token": 0}
    (row,) = catalogue(entry(free)).info_rows(["gpt"])
    assert row["model_info"]["input_cost_per_token"] == 0
    (unpriced,) = catalogue(entry({"model": "openai/unheard-of"})).info_rows(["gpt"])
    assert "price_source" not in unpriced["model_info"]


def test_a_models_info_can_be_asked_for_by_id() -> None:
    models = catalogue(entry(info={"id": "a"}), entry(info={"id": "b"}))
    assert [row["model_info"]["id"] for row in models.info_rows({"gpt"}, "b")] == ["b"]
    assert models.info_rows({"gpt"}, "c") == []
    assert models.info_rows({"other"}) == []


def test_the_default_configuration_has_one_priced_mock() -> None:
    (model,) = Catalogue(MODEL_LIST.validate_python(list(DEFAULT_MODEL_LIST))).deployments
    assert (model.model_name, model.price_source) == ("mock-gpt", "litellm_params")
    assert model.mock_response


def test_deployments_are_tried_by_lot_each_once() -> None:
    light, heavy = deployment(id="light", weight=1), deployment(id="heavy", weight=3)
    assert in_weighted_order([light, heavy], lambda: 0.0) == [light, heavy]
    assert in_weighted_order([light, heavy], lambda: 0.24) == [light, heavy]
    assert in_weighted_order([light, heavy], lambda: 0.26) == [heavy, light]
    assert in_weighted_order([light, heavy], lambda: 0.999_999) == [heavy, light]
    assert in_weighted_order([], lambda: 0.5) == []
