"""What a request may hold: each kind of value and each class of field (§1.3)."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from shared.body import parse_json, refused_from
from shared.durations import DurationText
from shared.errors import Refused
from shared.money import Money
from shared.values import (
    INTEGER_MAX,
    UNSUPPORTED,
    Body,
    Day,
    Email,
    Id,
    LimitInt,
    Metadata,
    Name,
    Query,
    StringList,
    Text,
    Time,
    drop_unset_unsupported,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


class Role(StrEnum):
    ADMIN = "proxy_admin"
    USER = "internal_user"


class Member(Body):
    user_id: Id
    role: Literal["admin", "user"] = "user"


class NewThing(Body):
    later: ClassVar[frozenset[str]] = frozenset({"budget_limits", "soft_budget"})

    key_alias: Name | None = None
    user_email: Email | None = None
    user_role: Role | None = None
    max_budget: Money | None = None
    budget_duration: DurationText | None = None
    tpm_limit: LimitInt | None = None
    models: StringList = Field(default_factory=list)
    metadata: Metadata | None = None
    expires: Time | None = None
    blocked: bool = False
    count: int = 0
    member: Member | None = None
    members: Annotated[list[Member], Field(max_length=2, default_factory=list)]
    note: Text = ""
    anything: Any = None


class Listing(Query):
    later: ClassVar[frozenset[str]] = frozenset({"include_team_keys"})

    page: Annotated[int, Field(ge=1)] = 1
    size: Annotated[int, Field(ge=1, le=100)] = 10
    full: bool = False
    user_id: Id | None = None
    role: Role | None = None
    tags: list[str] = Field(default_factory=list)
    start_date: Day | None = None


def read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


def refusal_of(model: type[Body] | type[Query], **fields: object) -> Refused:
    with pytest.raises(ValidationError) as invalid:
        model.model_validate(fields)
    return refused_from(invalid.value)


def reason_of(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as invalid:
        read(kind, value)
    return refused_from(invalid.value).code


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0),
        (10, 10),
        ("10", 10),
        ("0", 0),
        ("-0", 0),
        (10.0, 10),
        (Decimal("10.0"), 10),
        (Decimal("1E+3"), 1_000),
        (INTEGER_MAX, INTEGER_MAX),
        (str(INTEGER_MAX), INTEGER_MAX),
    ],
)
def test_a_limit_is_an_integer_also_written_as_one(value: object, number: int) -> None:
    assert read(LimitInt, value) == number
    assert type(read(LimitInt, value)) is int


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "wrong_type"),
        (False, "wrong_type"),
        (None, "wrong_type"),
        ("", "wrong_type"),
        ("ten", "wrong_type"),
        ("10.0", "wrong_type"),
        (" 10", "wrong_type"),
        ("1_0", "wrong_type"),
        ("\u0661", "wrong_type"),
        ([], "wrong_type"),
        (Decimal("10.5"), "wrong_type"),
        (10.5, "wrong_type"),
        (-1, "out_of_range"),
        ("-1", "out_of_range"),
        (INTEGER_MAX + 1, "out_of_range"),
        (10**400, "out_of_range"),
        ("9" * 5_000, "out_of_range"),
        (Decimal("1E+999999"), "out_of_range"),
        (Decimal("-1E+999999999"), "out_of_range"),
        (Decimal("NaN"), "out_of_range"),
        (float("nan"), "out_of_range"),
        (float("inf"), "out_of_range"),
    ],
)
def test_a_limit_is_nothing_else(value: object, reason: str) -> None:
    assert reason_of(LimitInt, value) == reason


@pytest.mark.parametrize("value", ["a", "a" * 255, "default_user_id", "a b", "user@example.com", "日本", "a/b", "🗝"])
@pytest.mark.parametrize("kind", [Id, Name])
def test_an_id_or_a_name_is_text_of_up_to_255_characters(kind: Any, value: str) -> None:
    assert read(kind, value) == value


@pytest.mark.parametrize("value", ["", "a" * 256, "a\u0000b", "a\nb", "a\x7f", "\x85a", "\ud800", "a\udfff"])
@pytest.mark.parametrize("kind", [Id, Name])
def test_an_id_or_a_name_is_neither_empty_long_nor_full_of_control_characters(kind: Any, value: str) -> None:
    assert reason_of(kind, value) == "out_of_range"


@pytest.mark.parametrize("value", [" a", "a ", "\u00a0a", "a\u2003"])
def test_white_space_at_the_ends_is_for_names_only(value: str) -> None:
    assert read(Name, value) == value
    assert reason_of(Id, value) == "out_of_range"


@pytest.mark.parametrize(
    ("value", "email"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada@Example.COM\n", "ada@example.com"),
        ("a@b", "a@b"),
        ("ÀDA@example.com", "àda@example.com"),
        ("a" * 242 + "@example.com", "a" * 242 + "@example.com"),
    ],
)
def test_an_email_is_trimmed_and_lower_case(value: str, email: str) -> None:
    assert read(Email, value) == email


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a@",
        "@b",
        "ab",
        "a@b@c",
        "@ab",
        "ab@",
        "a b@c",
        "a@b\nc",
        "a\u0000@b",
        "\ud800@b",
        "a" * 243 + "@example.com",
    ],
)
def test_what_is_no_email_is_out_of_range(value: str) -> None:
    assert reason_of(Email, value) == "out_of_range"


@given(st.text())
def test_an_email_that_is_taken_is_taken_again_as_it_is(text: str) -> None:
    try:
        email = read(Email, text)
    except ValidationError:
        return
    assert 3 <= len(email) <= 254
    assert email.count("@") == 1


@pytest.mark.parametrize("kind", [Id, Name, Email, Text, Time, Day, DurationText])
@pytest.mark.parametrize("value", [1, None, True, [], {}, Decimal(1)])
def test_text_is_text(kind: Any, value: object) -> None:
    assert reason_of(kind, value) == "wrong_type"


@pytest.mark.parametrize(
    ("sent", "rendered"),
    [
        ('{"a":1,"b":1.0,"c":[true,null,"x"],"d":{"e":0.1}}', '{"a":1,"b":1.0,"c":[true,null,"x"],"d":{"e":0.1}}'),
        ('{"big":18446744073709551615,"low":-9223372036854775808}',) * 2,
        ('{"a":1e300,"b":-0.0,"c":1E2}', '{"a":1e+300,"b":-0.0,"c":100.0}'),
        ("{}", "{}"),
    ],
)
def test_metadata_goes_out_as_it_came_in(sent: str, rendered: str) -> None:
    metadata = read(Metadata, parse_json(sent.encode()))
    assert orjson.dumps(metadata).decode() == rendered


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth > 1 else {}


def test_metadata_is_up_to_eight_levels_deep() -> None:
    assert read(Metadata, nested(8)) == nested(8)
    assert reason_of(Metadata, nested(9)) == "out_of_range"


def test_metadata_is_up_to_16_kib_of_json() -> None:
    assert read(Metadata, {"a": "x" * (16 * 1024 - 8)})
    assert reason_of(Metadata, {"a": "x" * (16 * 1024 - 7)}) == "out_of_range"
    assert reason_of(Metadata, {"a": "é" * (8 * 1024)}) == "out_of_range"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "wrong_type"),
        ("{}", "wrong_type"),
        (None, "wrong_type"),
        ({1: 2}, "wrong_type"),
        ({"a": object()}, "wrong_type"),
        ({"a": 2**64}, "out_of_range"),
        ({"a": -(2**63) - 1}, "out_of_range"),
        ({"a": Decimal("1E+400")}, "out_of_range"),
        ({"a": [{"b": "\u0000"}]}, "out_of_range"),
        ({"\ud800": 1}, "out_of_range"),
    ],
)
def test_metadata_that_can_not_be_kept_is_refused(value: object, reason: str) -> None:
    assert reason_of(Metadata, value) == reason


@given(JSON)
def test_metadata_is_kept_whole_or_refused(value: Any) -> None:
    try:
        metadata = read(Metadata, value)
    except ValidationError:
        return
    assert orjson.loads(orjson.dumps(metadata)) == metadata
    assert metadata.keys() == value.keys()


def test_a_list_has_up_to_500_names() -> None:
    assert len(read(StringList, ["m"] * 500)) == 500
    assert reason_of(StringList, ["m"] * 501) == "out_of_range"
    assert reason_of(StringList, [""]) == "out_of_range"
    assert reason_of(StringList, [1]) == "wrong_type"
    assert reason_of(StringList, "gpt") == "wrong_type"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-24T12:47:14Z", datetime(2026, 11, 24, 12, 47, 14, tzinfo=UTC)),
        ("2026-11-24t12:47:14z", datetime(2026, 11, 24, 12, 47, 14, tzinfo=UTC)),
        ("2026-11-24 12:47:14Z", datetime(2026, 11, 24, 12, 47, 14, tzinfo=UTC)),
        ("2026-11-24T12:47:14.583000Z", datetime(2026, 11, 24, 12, 47, 14, 583_000, tzinfo=UTC)),
        ("2026-11-24T12:47:14.5Z", datetime(2026, 11, 24, 12, 47, 14, 500_000, tzinfo=UTC)),
        ("2026-11-24T12:47:14.123456789Z", datetime(2026, 11, 24, 12, 47, 14, 123_456, tzinfo=UTC)),
        ("2026-11-24T01:47:14+02:00", datetime(2026, 11, 23, 23, 47, 14, tzinfo=UTC)),
        ("2026-11-24T12:47:14-00:30", datetime(2026, 11, 24, 13, 17, 14, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_into_utc(text: str, instant: datetime) -> None:
    assert read(Time, text) == instant
    assert read(Time, text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-24",
        "2026-11-24T12:47:14",
        "2026-11-24T12:47Z",
        "2026-13-24T12:47:14Z",
        "2026-02-29T12:47:14Z",
        "2026-11-24T25:00:00Z",
        "2026-11-24T12:47:60Z",
        "2026-11-24T12:47:14+2",
        "2026-11-24T12:47:14+24:00",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00Z",
        "1790000000",
        "now",
        "2026-11-24T12:47:14Z\n",
        "2026-11-24T1::47:1Z",
        "2026-W48-2T12:47:14Z",
        "\ud800",
        "2026-11-24T12:47:14.Z",
    ],
)
def test_a_time_without_zone_or_sense_is_malformed(text: str) -> None:
    assert reason_of(Time, text) == "time_malformed"


def test_a_day_is_a_date() -> None:
    assert read(Day, "2026-11-24") == date(2026, 11, 24)
    for text in ["", "2026-11-31", "20261124", "2026-11-24T00:00:00Z", "2026-W48-2", "24.11.2026"]:
        assert reason_of(Day, text) == "time_malformed"


def test_a_null_is_told_from_an_absent_field() -> None:
    assert NewThing.model_validate({"key_alias": None}).model_fields_set == {"key_alias"}
    assert NewThing.model_validate({}).model_fields_set == set()


def test_empty_text_is_no_money() -> None:
    thing = NewThing.model_validate({"max_budget": ""})
    assert thing.max_budget is None
    assert thing.model_fields_set == {"max_budget"}


def test_empty_text_is_not_nothing_for_other_fields() -> None:
    assert refusal_of(NewThing, tpm_limit="").code == "wrong_type"
    assert refusal_of(NewThing, budget_duration="").code == "duration_malformed"
    assert refusal_of(NewThing, key_alias="").code == "out_of_range"


@pytest.mark.parametrize("value", [None, "", False, [], {}])
@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_an_unsupported_field_that_says_nothing_is_left_out(name: str, value: object) -> None:
    assert NewThing.model_validate({name: value}).model_fields_set == set()


@pytest.mark.parametrize("value", [0, 1, True, "x", ["x"], {"x": 1}, Decimal("0.0")])
@pytest.mark.parametrize("name", ["guardrails", "permissions", "model_rpm_limit", "allowed_routes", "budget_limits"])
def test_an_unsupported_field_that_says_something_is_refused(name: str, value: object) -> None:
    refused = refusal_of(NewThing, **{name: value})
    assert (refused.code, refused.param, refused.status) == ("field_unsupported", name, 400)
    assert refused.message.startswith(name)


@pytest.mark.parametrize("name", ["rpm_limit_type", "tpm_limit_type"])
def test_an_unsupported_field_may_have_its_default(name: str) -> None:
    assert NewThing.model_validate({name: "best_effort_throughput"}).model_fields_set == set()
    assert refusal_of(NewThing, **{name: "guaranteed_throughput"}).code == "field_unsupported"


def test_a_field_of_a_later_version_is_left_out_while_it_says_nothing() -> None:
    assert NewThing.model_validate({"soft_budget": None, "budget_limits": []}).model_fields_set == set()
    assert refusal_of(NewThing, soft_budget=1).param == "soft_budget"


def test_dropping_leaves_known_fields_alone() -> None:
    data: dict[str, Any] = {"guardrails": [], "models": [], "prompts": None, "config": {"a": 1}, "x": None}
    assert drop_unset_unsupported(data, {"models", "guardrails"}) == {
        "guardrails": [],
        "models": [],
        "config": {"a": 1},
        "x": None,
    }


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    refused = refusal_of(NewThing, max_budgt=1)
    assert (refused.code, refused.param) == ("field_unknown", "max_budgt")
    assert refused.message == "max_budgt is not known here (did you mean max_budget?)"


def test_an_unknown_field_is_refused_also_when_it_is_null() -> None:
    assert refusal_of(NewThing, max_budgt=None).code == "field_unknown"


def test_a_very_long_unknown_name_is_cut_in_the_answer() -> None:
    assert len(refusal_of(NewThing, **{"x" * 100_000: 1}).message) < 200


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"blocked": "true"}, "wrong_type", "blocked"),
        ({"blocked": 1}, "wrong_type", "blocked"),
        ({"blocked": None}, "wrong_type", "blocked"),
        ({"count": True}, "wrong_type", "count"),
        ({"count": "1"}, "wrong_type", "count"),
        ({"key_alias": 1}, "wrong_type", "key_alias"),
        ({"key_alias": ["a"]}, "wrong_type", "key_alias"),
        ({"models": "gpt"}, "wrong_type", "models"),
        ({"models": [1]}, "wrong_type", "models.0"),
        ({"models": ["ok", ""]}, "out_of_range", "models.1"),
        ({"models": ["m"] * 501}, "out_of_range", "models"),
        ({"max_budget": True}, "wrong_type", "max_budget"),
        ({"max_budget": -1}, "out_of_range", "max_budget"),
        ({"tpm_limit": -1}, "out_of_range", "tpm_limit"),
        ({"budget_duration": "30x"}, "duration_malformed", "budget_duration"),
        ({"budget_duration": 30}, "wrong_type", "budget_duration"),
        ({"expires": "tomorrow"}, "time_malformed", "expires"),
        ({"metadata": []}, "wrong_type", "metadata"),
        ({"user_email": "nobody"}, "out_of_range", "user_email"),
        ({"user_role": "boss"}, "out_of_range", "user_role"),
        ({"user_role": 1}, "wrong_type", "user_role"),
        ({"member": "ada"}, "wrong_type", "member"),
        ({"member": {}}, "field_missing", "member.user_id"),
        ({"member": {"user_id": "a", "role": "boss"}}, "out_of_range", "member.role"),
        ({"member": {"user_id": "a", "role": 1}}, "wrong_type", "member.role"),
        ({"member": {"user_id": "a", "rol": "user"}}, "field_unknown", "member.rol"),
        ({"member": {"user_id": "a", "permissions": {"x": 1}}}, "field_unsupported", "member.permissions"),
        ({"members": [{"user_id": "a"}, {"user_id": ""}]}, "out_of_range", "members.1.user_id"),
        ({"members": [{"user_id": "a"}] * 3}, "out_of_range", "members"),
        ({"note": "a\u0000"}, "out_of_range", "note"),
        ({"anything": {"a": ["\u0000"]}}, "out_of_range", "anything.a.0"),
        ({"anything": {"\u0000": 1}}, "out_of_range", "anything"),
    ],
)
def test_a_fault_has_its_reason_and_its_dotted_field(fields: dict[str, Any], reason: str, param: str) -> None:
    refused = refusal_of(NewThing, **fields)
    assert (refused.code, refused.param) == (reason, param)
    assert refused.message.startswith(f"{param} ")


def test_an_enumeration_is_sent_as_its_text() -> None:
    assert NewThing.model_validate({"user_role": "internal_user"}).user_role is Role.USER
    assert NewThing.model_validate({"user_role": None}).user_role is None
    assert "proxy_admin, internal_user" in refusal_of(NewThing, user_role="boss").message


def test_a_nested_unset_unsupported_field_is_left_out_too() -> None:
    assert NewThing.model_validate({"member": {"user_id": "a", "permissions": {}}}).member == Member(user_id="a")


def test_a_body_is_frozen() -> None:
    with pytest.raises(ValidationError):
        NewThing.model_validate({}).__setattr__("count", 1)


def test_query_parameters_are_read_as_their_types() -> None:
    listing = Listing.model_validate({"page": "2", "full": "true", "role": "proxy_admin", "start_date": "2026-11-24"})
    assert (listing.page, listing.full, listing.role) == (2, True, Role.ADMIN)
    assert listing.start_date == date(2026, 11, 24)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("page", "0", "out_of_range"),
        ("page", "x", "wrong_type"),
        ("page", "1.5", "wrong_type"),
        ("page", "9" * 5_000, "out_of_range"),
        ("size", "101", "out_of_range"),
        ("full", "maybe", "wrong_type"),
        ("role", "boss", "out_of_range"),
        ("user_id", "a\u0000", "out_of_range"),
        ("start_date", "yesterday", "time_malformed"),
        ("pag", "1", "field_unknown"),
        ("organization_id", "o", "field_unsupported"),
        ("include_team_keys", "true", "field_unsupported"),
    ],
)
def test_a_bad_query_parameter_is_refused(name: str, value: str, reason: str) -> None:
    refused = refusal_of(Listing, **{name: value})
    assert (refused.code, refused.param) == (reason, name)


@pytest.mark.parametrize("value", ["", "false"])
def test_an_unsupported_query_parameter_that_says_nothing_is_left_out(value: str) -> None:
    assert Listing.model_validate({"organization_id": value, "include_team_keys": value}).model_fields_set == set()


@given(st.dictionaries(st.sampled_from([*NewThing.model_fields, "config", "x"]), JSON, max_size=4))
def test_no_body_breaks_the_reading_of_bodies(data: dict[str, Any]) -> None:
    try:
        NewThing.model_validate(data)
    except ValidationError as invalid:
        refused = refused_from(invalid)
        assert refused.status == 400
        assert refused.message
