"""The list of NATS users: whose subjects are whose."""

import base64
import json

from keystead.app import SERVICES
from keystead.nats_users import SUBSCRIBER, nats_accounts, nats_urls, nats_users, subscriber_url
from shared.keyring import Keyring

KEYRING = Keyring(base64.b64encode(bytes(32)).decode())
CREATE = ("CREATE", "DURABLE.CREATE")
URL = "nats://127.0.0.1:4222"


def test_each_service_has_a_log_in_of_its_own() -> None:
    users, urls = nats_users(KEYRING), nats_urls(URL, KEYRING)
    services = [service.name for service in SERVICES]
    assert [*urls] == services
    assert [user.name for user in users] == [*services, SUBSCRIBER]
    assert len({user.password for user in users}) == len(SERVICES) + 1
    for user in users[:-1]:
        assert urls[user.name] == f"nats://{user.name}:{user.password}@127.0.0.1:4222"


def test_a_log_in_that_the_address_names_is_everyones() -> None:
    assert {*nats_urls("tls://us:secret@nats.example.test", KEYRING).values()} == {"tls://us:secret@nats.example.test"}


def test_nobody_tells_anothers_events_nor_hears_anothers_questions_and_answers() -> None:
    for user in nats_users(KEYRING):
        others = [service.name for service in SERVICES if service.name != user.name]
        said, heard = [*user.publish], [*user.subscribe]
        assert [subject for subject in said if subject.split(".")[0] in others] == []
        assert [subject for subject in heard if subject.split(".")[1:2] in [[other] for other in others]] == []
        assert f"_INBOX_{user.name}.>" in heard
        assert [subject for subject in heard if subject.startswith("_INBOX")] == [f"_INBOX_{user.name}.>"]


def test_nobody_may_do_all() -> None:
    for user in nats_users(KEYRING):
        assert not {">", "*", "*.>", "$JS.>", "$JS.API.>"} & {*user.publish, *user.subscribe}


def test_a_stream_is_declared_by_its_owner_alone_and_deleted_and_purged_by_nobody() -> None:
    for user in nats_users(KEYRING)[:-1]:
        streams = [subject for subject in user.publish if subject.startswith("$JS.API.STREAM.")]
        changing = {subject for subject in streams if ".INFO." not in subject}
        own = user.name.upper()
        assert changing == {f"$JS.API.STREAM.CREATE.{own}", f"$JS.API.STREAM.UPDATE.{own}"}


def test_a_service_has_to_do_with_its_own_consumers_alone() -> None:
    for user in nats_users(KEYRING)[:-1]:
        if user.name == "gateway":
            continue  # a worker's are named by the server
        consumers = [subject for subject in user.publish if ".CONSUMER." in subject or "$JS.ACK." in subject]
        made_for_outside = {f"$JS.API.CONSUMER.{verb}.{user.name.upper()}.{SUBSCRIBER}" for verb in CREATE}
        assert [each for each in consumers if f".{user.name}-" not in each and each not in made_for_outside] == []


def test_an_outside_subscriber_takes_what_comes_to_its_own_consumers_and_does_nothing_else() -> None:
    subscriber = nats_users(KEYRING)[-1]
    assert [*subscriber.subscribe] == ["_INBOX_subscriber.>"]
    told = {service.name.upper() for service in SERVICES if service.catalog.types}
    assert {*subscriber.publish} == {
        subject
        for stream in told
        for subject in (
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.subscriber",
            f"$JS.ACK.{stream}.subscriber.>",
        )
    }
    assert subscriber_url(URL, KEYRING) == f"nats://subscriber:{subscriber.password}@127.0.0.1:4222"


def test_the_accounts_are_a_part_of_a_nats_servers_configuration() -> None:
    told = nats_accounts(nats_users(KEYRING))
    name, _, content = told.partition(": ")
    accounts = json.loads(content)
    assert (name, [*accounts]) == ("accounts", ["KEYSTEAD", "SUBSCRIBER"])
    inside, outside = ([user["user"] for user in account["users"]] for account in accounts.values())
    assert [*inside, *outside] == [user.name for user in nats_users(KEYRING)] and outside == [SUBSCRIBER]
    assert "jetstream" not in accounts["SUBSCRIBER"]
