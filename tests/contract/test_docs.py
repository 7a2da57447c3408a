"""What the pages say is so: those made from the code are not stale, and the README's commands are the Makefile's."""

import re
import subprocess
from pathlib import Path

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel

from keystead.app import SERVICES
from keystead.docs import check
from keystead.settings import ProcessSettings

ROOT = Path(__file__).parents[2]
CLASSES: list[type[BaseModel]] = [ProcessSettings, *(service.settings for service in SERVICES)]
PAGES = sorted(str(path.relative_to(ROOT)) for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md"))
FIELDS = [(settings.__name__, name) for settings in CLASSES for name in settings.model_fields]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", read("Makefile"), re.MULTILINE))


def test_the_pages_made_from_the_code_are_as_make_docs_would_write_them() -> None:
    assert check(ROOT / "docs") == []


@pytest.mark.parametrize(("settings", "name"), FIELDS)
def test_every_setting_is_told_with_the_places_it_is_read_from(settings: str, name: str) -> None:
    info = {each.__name__: each for each in CLASSES}[settings].model_fields[name]
    assert info.description
    assert isinstance(info.validation_alias, AliasChoices)
    rows = [line for line in read("docs/settings.md").splitlines() if line.startswith("| ")]
    for place in info.validation_alias.choices:
        told = ".".join(map(str, place.path)) if isinstance(place, AliasPath) else place
        assert any(f"`{told}`" in row for row in rows), told


def test_the_two_commands_are_the_makefiles() -> None:
    section = read("README.md").partition("## Two commands")[2].partition("\n## ")[0]
    told = set(re.findall(r"\bmake ([a-z0-9-]+)", section))
    assert {"up", "test"} <= told <= makefile_targets()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_no_target_and_no_file_that_is_not_there(page: str) -> None:
    text = read(page)
    assert set(re.findall(r"`make ([a-z0-9-]+)", text)) <= makefile_targets()
    for linked in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / page).parent.joinpath(linked).exists(), linked


def test_the_walk_to_an_event_of_ones_own_finds_each_line_that_it_looks_for() -> None:
    walk = read("CONTRIBUTING.md").partition("## An event of your own")[2].partition("\n## ")[0]
    steps = re.findall(r"^(?:.*\bIn `([^`]+)`, |and )(?:above|below|in place of) `([^`]+)`$", walk, re.MULTILINE)
    assert len(steps) > 20
    path = ""
    for named, line in steps:
        path = named or path
        assert line in map(str.strip, read(path).splitlines()), f"{path}: {line}"


def test_every_line_of_the_log_is_told_to_who_runs_it() -> None:
    code = [
        path.read_text(encoding="utf-8")
        for of in ("keystead", "services", "shared")
        for path in ROOT.glob(f"{of}/**/*.py")
    ]
    said = {
        name for text in code for name in re.findall(r"\b(?:log\.\w+|note|_noting)\(\s*\"([a-z_]+\.[a-z_]+)\"", text)
    }
    assert len(said) > 30
    assert {name for name in said if f"`{name}`" not in read("docs/operating.md")} == set()


def test_make_help_lists_every_command() -> None:
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert phony
    assert re.findall(r"^make ([a-z0-9-]+) ", listed.stdout, re.MULTILINE) == phony[1].split()


def test_ci_runs_what_anybody_can_run() -> None:
    assert read(".ci/run").rstrip().endswith("exec make test")


def test_the_pinned_files_name_no_index_and_are_hashed() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = read(name)
        assert "://" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        pins = re.split(r"^(?=[a-z0-9]\S*==)", text, flags=re.MULTILINE | re.IGNORECASE)[1:]
        assert len(pins) > 30
        assert [
            pin.split()[0] for pin in pins if not re.search(r"^    --hash=sha256:[0-9a-f]{64}", pin, re.MULTILINE)
        ] == []
