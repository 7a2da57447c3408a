"""The models that calls can ask for, and the ways to reach each (§3.7, §4.1)."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.gateway.model_list import TIMEOUT_SECONDS, LitellmParams, ModelEntry, ModelInfo
from services.gateway.pricing import Listed, Lookup, Prices, choose_prices, find_listed

MODEL_CREATED = 1_677_610_602  # §3.7: a constant


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to reach a model: a provider's address, its credential and its prices."""

    model_name: str
    provider: str
    upstream_model: str
    api_base: str
    id: str
    api_key: str | None = field(default=None, repr=False)
    api_version: str | None = None
    organization: str | None = None
    mock_response: str | None = None
    prices: Prices | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    weight: int = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """``provider/name``, as SpendRows show it."""
        return f"{self.provider}/{self.upstream_model}"

    @property
    def price_source(self) -> str | None:
        return None if self.prices is None else self.prices.source


class Catalogue:
    """All models that the file names, in its order. ``lookup`` finds what the file does not say in the price table."""

    def __init__(self, entries: Sequence[ModelEntry], *, lookup: Lookup = find_listed) -> None:
        ids: set[str] = {entry.model_info.id for entry in entries if entry.model_info.id is not None}
        by_name: dict[str, tuple[Deployment, ...]] = {}
        for entry in entries:
            deployment = _deployment(entry, _own_id(entry, ids), lookup)
            by_name[entry.model_name] = (*by_name.get(entry.model_name, ()), deployment)
        self._by_name = by_name
        self.warnings = tuple(_warnings(entries))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return tuple(deployment for group in self._by_name.values() for deployment in group)

    def find(self, name: str) -> tuple[Deployment, ...]:
        """The deployments of a model; none if it is unknown."""
        return self._by_name.get(name, ())

    def model_rows(self, names: Collection[str]) -> list[dict[str, Any]]:
        """What `/v1/models` lists for who may call ``names``."""
        return [
            {"id": name, "object": "model", "created": MODEL_CREATED, "owned_by": group[0].provider}
            for name, group in self._by_name.items()
            if name in names
        ]

    def info_rows(self, names: Collection[str], model_id: str | None = None) -> list[dict[str, Any]]:
        """What `/model/info` lists, a row a deployment. Prices are ``Decimal``: USD per token."""
        shown = [deployment for deployment in self.deployments if deployment.model_name in names]
        return [_info_row(deployment) for deployment in shown if model_id in (None, deployment.id)]


def in_weighted_order(deployments: Sequence[Deployment], draw: Callable[[], float]) -> list[Deployment]:
    """The deployments in the order to try them: each next one by lot, by weight. ``draw`` gives numbers in [0, 1)."""
    left, order = list(deployments), []
    while left:
        ticket = draw() * sum(deployment.weight for deployment in left)
        chosen = next((index for index in range(len(left)) if ticket < _weight_up_to(left, index)), -1)
        order.append(left.pop(chosen))
    return order


def _weight_up_to(deployments: Sequence[Deployment], index: int) -> int:
    return sum(deployment.weight for deployment in deployments[: index + 1])


def _own_id(entry: ModelEntry, taken: set[str]) -> str:
    """The id given, or a hash of name, model and address; with a number where two deployments have these in common."""
    if entry.model_info.id is not None:
        return entry.model_info.id
    facts = [entry.model_name, entry.litellm_params.model, entry.litellm_params.address]
    digest, number = _digest(facts), 1
    while digest in taken:
        number += 1
        digest = _digest([*facts, str(number)])
    taken.add(digest)
    return digest


def _digest(facts: list[str]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _deployment(entry: ModelEntry, model_id: str, lookup: Lookup) -> Deployment:
    params, info = entry.litellm_params, entry.model_info
    listed = _look_up(params, info, lookup)
    return Deployment(
        model_name=entry.model_name,
        provider=params.provider,
        upstream_model=params.upstream_model,
        api_base=params.address,
        id=model_id,
        api_key=params.api_key,
        api_version=params.api_version,
        organization=params.organization,
        mock_response=params.mock_response,
        prices=choose_prices(params.rates, info.rates, listed),
        timeout_seconds=params.timeout,
        weight=params.weight,
        defaults=params.defaults,
        max_input_tokens=info.max_input_tokens or (listed.max_input_tokens if listed else None),
        max_output_tokens=info.max_output_tokens,
        info=dict(info.model_extra or {}),
    )


def _look_up(params: LitellmParams, info: ModelInfo, lookup: Lookup) -> Listed | None:
    """The table's entry, where the file leaves something out. Importing the table is slow: not for nothing."""
    priced = all(
        given is not None or known is not None
        for given, known in (
            (params.input_cost_per_token, info.input_cost_per_token),
            (params.output_cost_per_token, info.output_cost_per_token),
        )
    )
    if priced and (info.max_input_tokens is not None or params.mock_response is not None):
        return None
    return lookup(params.provider, params.upstream_model)


def _warnings(entries: Sequence[ModelEntry]) -> Iterator[str]:
    for index, entry in enumerate(entries):
        for name in entry.litellm_params.ignored:
            yield f"model_list.{index}.litellm_params.{name}: not enforced"


def _info_row(deployment: Deployment) -> dict[str, Any]:
    rates = deployment.prices.rates if deployment.prices is not None else None
    costs = {
        "input_cost_per_token": rates and rates.input_usd,
        "output_cost_per_token": rates and rates.output_usd,
    }
    params = {"model": deployment.model, **costs, "mock_response": deployment.mock_response}
    info = {
        **deployment.info,
        "id": deployment.id,
        "db_model": False,
        "key": deployment.model,
        "litellm_provider": deployment.provider,
        "max_input_tokens": deployment.max_input_tokens,
        "max_output_tokens": deployment.max_output_tokens,
        **costs,
        "cache_read_input_token_cost": rates and rates.cache_read_usd,
        "cache_creation_input_token_cost": rates and rates.cache_creation_usd,
        "price_source": deployment.price_source,
    }
    return {
        "model_name": deployment.model_name,
        "litellm_params": _without_nulls(params),
        "model_info": _without_nulls(info),
    }


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
