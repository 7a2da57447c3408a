"""Where the servers' programs are looked for."""

from pathlib import Path

import pytest

from keystead.servers import ServerMissing, find_nats_server, find_postgres_bin


def test_the_wheels_have_both_servers() -> None:
    assert {"postgres", "initdb"} <= {path.name for path in find_postgres_bin({}).iterdir()}
    assert find_nats_server({}).name == "nats-server"


def test_pg_bin_goes_before_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "postgres").touch()
    assert find_postgres_bin({"PG_BIN": str(tmp_path)}) == tmp_path


def test_a_wrong_pg_bin_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match="no program postgres in it"):
        find_postgres_bin({"PG_BIN": str(tmp_path)})
