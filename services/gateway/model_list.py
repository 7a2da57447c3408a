"""The setting `model_list` (§4.1), read strictly: a name that nobody knows stops the start."""

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from services.gateway import parameters
from services.gateway.pricing import KnownRates
from shared.errors import Refused

# Where each provider speaks OpenAI's dialect. Azure has no address that all its customers share.
DEFAULT_API_BASES: Mapping[str, str | None] = {
    "openai": "https://api.openai.com/v1",
    "azure": None,
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "mistral": "https://api.mistral.ai/v1",
    "groq": "https://api.groq.com/openai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "xai": "https://api.x.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "ollama": "http://127.0.0.1:11434/v1",
    "hosted_vllm": "http://127.0.0.1:8000/v1",
}

# A model to try the whole flow with, without an account anywhere.
DEFAULT_MODEL_LIST: Sequence[Mapping[str, Any]] = (
    {
        "model_name": "mock-gpt",
        "litellm_params": {
            "model": "openai/mock-gpt",
            "mock_response": "Hello from the mock model. It answers every call with this one sentence.",
            "input_cost_per_token": "0.000001",
            "output_cost_per_token": "0.000002",
        },
    },
)

TIMEOUT_SECONDS = 600.0
TIMEOUT_SECONDS_MAX = 86_400
WEIGHT_MAX = 1_000_000
TOKENS_MAX = 1_000_000_000
USD_PER_TOKEN_MAX = 1_000
NAME_LENGTH_MAX = 255
RESERVED_NAMES = ("all-proxy-models", "all-team-models", "no-default-models")  # §5.4: what lists of models say

FAULT = "setting"
HIDDEN = "(hidden)"

DEFAULTABLE = parameters.CHAT | parameters.COMPLETION | parameters.EMBEDDING
# Known, and not enforced: leaving them out opens nothing (§4).
IGNORED = ("rpm", "tpm")

M = TypeVar("M", bound=BaseModel)

_PROVIDER_AND_NAME = re.compile(r"([a-z0-9_-]+)/(\S(?:.*\S)?)")
_HEADER_TEXT = re.compile(r"[!-~]+")
_DIGITS = re.compile(r"[0-9]{1,15}")  # an environment variable's number is text


def _fault(wrong: str, accepted: str) -> PydanticCustomError:
    """Reads after the value: ``"gpt-4o" is not provider and name (provider/name, such as openai/gpt-4o)``."""
    return PydanticCustomError(FAULT, "{wrong} ({accepted})", {"wrong": wrong, "accepted": accepted})


def _model_name(value: object) -> str:
    accepted = f"a string of 1 to {NAME_LENGTH_MAX} characters"
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LENGTH_MAX or value != value.strip():
        raise _fault("is no model name", accepted)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise _fault("is a name with control characters", accepted)
    if "*" in value:
        raise _fault("is a wildcard", "the name of one model")
    if value in RESERVED_NAMES:
        raise _fault("is a word of its own in lists of models", "another name")
    return value


def _provider_and_name(value: object) -> str:
    accepted = "provider/name, such as openai/gpt-4o"
    if not isinstance(value, str) or not _PROVIDER_AND_NAME.fullmatch(value):
        raise _fault("is not provider and name", accepted)
    if "*" in value:
        raise _fault("is a wildcard", accepted)
    return value


def _address(value: object) -> str:
    accepted = "an http or https URL without user, query and fragment"
    if not isinstance(value, str) or not _HEADER_TEXT.fullmatch(value):
        raise _fault("is no URL", accepted)
    try:
        url = urlsplit(value)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid or "@" in url.netloc or url.query or url.fragment:
        raise _fault("is no address of a provider", accepted)
    return value.rstrip("/")


def _header_text(value: object) -> str:
    """Something that is sent as a header or in a path: a file's last newline in it is a mistake."""
    if not isinstance(value, str) or not _HEADER_TEXT.fullmatch(value):
        raise _fault("is nothing that can be sent", "a string of printable ASCII characters without spaces")
    return value


def _id(value: object) -> str:
    if not isinstance(value, str) or not _HEADER_TEXT.fullmatch(value) or len(value) > NAME_LENGTH_MAX:
        raise _fault("is no id", f"a string of 1 to {NAME_LENGTH_MAX} printable ASCII characters without spaces")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _fault("is no string", "a string")
    try:
        value.encode()
    except UnicodeEncodeError as fault:
        raise _fault("is no Unicode text", "a string") from fault
    return value


def _usd_per_token(value: object) -> Decimal:
    try:
        # YAML reads 0.000001 as a float and 1e-6 as a string.
        amount = Decimal(str(value)) if isinstance(value, int | float | str | Decimal) else Decimal("NaN")
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or not 0 <= amount <= USD_PER_TOKEN_MAX:
        raise _fault("is no price", f"USD per token, 0 to {USD_PER_TOKEN_MAX}")
    return amount


def _integer(most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise _fault("is out of range", f"an integer from 1 to {most}")
        return number

    return read


def _seconds(value: object) -> float:
    number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= TIMEOUT_SECONDS_MAX:
        raise _fault("is no time-out", f"seconds, above 0, at most {TIMEOUT_SECONDS_MAX}")
    return float(number)


Price = Annotated[Decimal, BeforeValidator(_usd_per_token)]
Tokens = Annotated[int, BeforeValidator(_integer(TOKENS_MAX))]


class LitellmParams(BaseModel):
    """`litellm_params` of one entry. Parameters of OpenAI's bodies are in ``defaults``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, BeforeValidator(_provider_and_name)]
    api_key: Annotated[str, BeforeValidator(_header_text)] | None = Field(None, repr=False)
    api_base: Annotated[str, BeforeValidator(_address)] | None = None
    api_version: Annotated[str, BeforeValidator(_header_text)] | None = None
    organization: Annotated[str, BeforeValidator(_header_text)] | None = None
    mock_response: Annotated[str, BeforeValidator(_text)] | None = None
    input_cost_per_token: Price | None = None
    output_cost_per_token: Price | None = None
    cache_read_input_token_cost: Price | None = None
    cache_creation_input_token_cost: Price | None = None
    timeout: Annotated[float, BeforeValidator(_seconds)] = TIMEOUT_SECONDS
    weight: Annotated[int, BeforeValidator(_integer(WEIGHT_MAX))] = 1
    defaults: dict[str, Any] = Field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _sort_names(cls, given: object, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Splits what the file says into our own settings and defaults of calls."""
        section = _mapping(given, "the settings of one model")
        own = {name: value for name, value in section.items() if name in _OWN_NAMES and value is not None}
        defaults = {name: value for name, value in section.items() if name in DEFAULTABLE and value is not None}
        ignored = tuple(name for name in IGNORED if section.get(name) is not None)
        faults = [
            *_missing_names(section, ("model",)),
            *_unknown_names(section, _OWN_NAMES | DEFAULTABLE | frozenset(IGNORED)),
            *_default_faults(defaults),
        ]
        return _read_all(read, {**own, "defaults": defaults, "ignored": ignored}, faults)

    @property
    def provider(self) -> str:
        return self.model.split("/", 1)[0]

    @property
    def upstream_model(self) -> str:
        return self.model.split("/", 1)[1]

    @property
    def rates(self) -> KnownRates:
        return _rates_of(self)

    @property
    def address(self) -> str:
        """Where the provider is; empty for one that is never called."""
        known = self.api_base or DEFAULT_API_BASES.get(self.provider) or ""
        if self.provider == "ollama" and known and urlsplit(known).path == "":
            return known + "/v1"  # LiteLLM's files name the server; OpenAI's dialect is below it
        return known

    @model_validator(mode="after")
    def _has_an_address(self) -> "LitellmParams":
        if self.address or self.mock_response is not None:
            return self
        fault = _fault("is at no known address", f"api_base; known without it: {', '.join(_known_providers())}")
        raise _all_of([InitErrorDetails(type=fault, loc=("model",), input=self.model)])


_OWN_NAMES = frozenset(LitellmParams.model_fields) - {"defaults", "ignored"}


def _known_providers() -> list[str]:
    return [provider for provider, address in DEFAULT_API_BASES.items() if address is not None]


def _mapping(given: object, accepted: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise _fault("is no mapping", accepted)
    return given


def _read_all(read: ModelWrapValidatorHandler[M], section: dict[str, Any], faults: list[InitErrorDetails]) -> M:
    """The section as a model, or all that is wrong with it: ``faults``, and what the fields find."""
    try:
        model = read(section)
    except ValidationError as invalid:
        found = [_again(fault) for fault in invalid.errors(include_url=False) if fault["type"] != "missing"]
        raise _all_of(faults + found) from None
    if faults:
        raise _all_of(faults)
    return model


def _all_of(faults: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("model_list", faults)


def _again(fault: ErrorDetails) -> InitErrorDetails:
    """A fault that was found, without what was read there: a credential is not to be shown."""
    if fault["type"] != FAULT:
        return InitErrorDetails(type=_fault("is of the wrong type", fault["msg"]), loc=fault["loc"], input=HIDDEN)
    shown = HIDDEN if "api_key" in fault["loc"] else fault["input"]
    return InitErrorDetails(type=_fault(**fault["ctx"]), loc=fault["loc"], input=shown)


def _missing_names(section: Mapping[Any, Any], required: Sequence[str]) -> Iterator[InitErrorDetails]:
    """Said here and not by pydantic, whose error would carry the whole section, credential and all."""
    for name in required:
        if section.get(name) is None:
            yield InitErrorDetails(type=_fault("is missing", "required"), loc=(name,), input=None)


def _unknown_names(section: Mapping[Any, Any], known: Collection[str]) -> Iterator[InitErrorDetails]:
    """A fault for each, on the section and not on the value, which is not to be shown: it may be a misspelled key's."""
    for name in section:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0)[0]
            fault = _fault(f"is given {name}, which is not a setting", f"did you mean {nearest}?")
            yield InitErrorDetails(type=fault, loc=(), input=None)


def _default_faults(defaults: Mapping[str, object]) -> Iterator[InitErrorDetails]:
    """A parameter of OpenAI's bodies that the file gives is held to what a call's is held to."""
    for name, value in defaults.items():
        try:
            json.dumps(value, allow_nan=False)
            parameters.check_parameters({name: value})
        except Refused as refusal:
            yield InitErrorDetails(type=_fault("is no default for calls", refusal.message), loc=(name,), input=value)
        except (TypeError, ValueError):
            fault = _fault("is no JSON", "what a call's body can hold")
            yield InitErrorDetails(type=fault, loc=(name,), input=str(value))


class ModelInfo(BaseModel):
    """`model_info` of one entry. Other names are kept and shown."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[str, BeforeValidator(_id)] | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    input_cost_per_token: Price | None = None
    output_cost_per_token: Price | None = None
    cache_read_input_token_cost: Price | None = None
    cache_creation_input_token_cost: Price | None = None

    @property
    def rates(self) -> KnownRates:
        return _rates_of(self)


class ModelEntry(BaseModel):
    """One entry of `model_list`: a deployment of the model ``model_name``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: Annotated[str, BeforeValidator(_model_name)]
    litellm_params: LitellmParams
    model_info: ModelInfo = ModelInfo()

    @model_validator(mode="wrap")
    @classmethod
    def _know_names(cls, given: object, read: ModelWrapValidatorHandler[Self]) -> Self:
        entry = _mapping(given, "model_name, litellm_params, model_info")
        names = ("model_name", "litellm_params")
        faults = [*_missing_names(entry, names), *_unknown_names(entry, (*names, "model_info"))]
        known = {name: value for name, value in entry.items() if name in cls.model_fields and value is not None}
        return _read_all(read, known, faults)


def _rates_of(section: LitellmParams | ModelInfo) -> KnownRates:
    return KnownRates(
        input_usd=section.input_cost_per_token,
        output_usd=section.output_cost_per_token,
        cache_read_usd=section.cache_read_input_token_cost,
        cache_creation_usd=section.cache_creation_input_token_cost,
    )


def _with_distinct_ids(entries: list[ModelEntry]) -> list[ModelEntry]:
    given = Counter(entry.model_info.id for entry in entries if entry.model_info.id is not None)
    faults = [
        InitErrorDetails(
            type=_fault("is the id of another deployment as well", "an id of its own"),
            loc=(index, "model_info", "id"),
            input=entry.model_info.id,
        )
        for index, entry in enumerate(entries)
        if entry.model_info.id is not None and given[entry.model_info.id] > 1
    ]
    if faults:
        raise _all_of(faults)
    return entries


ModelList = Annotated[list[ModelEntry], AfterValidator(_with_distinct_ids)]
"""The type of the setting `model_list`."""
