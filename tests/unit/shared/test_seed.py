"""What is drawn from a seed: the same again for the same purpose, and nothing that tells of anything else."""

from shared import seed as sowing
from shared.secret import draw_key, draw_uuid
from shared.seed import Seed, draw_seed

ONE, OTHER = Seed(b"1" * 32), Seed(b"2" * 32)


def test_the_same_seed_draws_the_same_key_again() -> None:
    assert draw_key(ONE.token_bytes("key")) == draw_key(ONE.token_bytes("key"))
    assert draw_uuid(ONE.token_bytes("user")) == draw_uuid(ONE.token_bytes("user"))


def test_another_seed_or_purpose_draws_another() -> None:
    drawn = [draw_key(seed.token_bytes(purpose)).key for seed in (ONE, OTHER) for purpose in ("key", "invitation")]
    assert len({*drawn}) == 4


def test_what_is_drawn_next_is_another() -> None:
    token_bytes = ONE.token_bytes("user")
    assert len({draw_uuid(token_bytes) for _ in range(100)}) == 100


def test_the_command_id_is_the_seeds_own_and_nothing_that_is_drawn() -> None:
    assert ONE.command_id == Seed(b"1" * 32).command_id != OTHER.command_id
    assert ONE.command_id != draw_uuid(ONE.token_bytes("command"))


def test_seeds_differ() -> None:
    assert len({draw_seed().content for _ in range(100)}) == 100


def test_a_seed_shows_nothing_of_itself() -> None:
    assert "1111" not in repr(ONE)


def test_a_seed_is_there_for_the_length_of_its_request() -> None:
    assert sowing.current() is None
    with sowing.sown(ONE):
        assert sowing.current() is ONE
    assert sowing.current() is None
