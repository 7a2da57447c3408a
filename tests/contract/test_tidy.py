"""Style is a test: what a reviewer would have to say about a file's form is said here, and can only get stricter."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("keystead", "services", "shared")
FOLDERS = (*CODE, "tests", "docs", "examples", ".ci")
TEXT = {".py", ".sql", ".sh", ".md", ".toml", ".in", ".txt", ".yaml", ".yml", ""}

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
# Longer already, and to be split: a name may leave this list, and none may join it.
TOO_LONG = {
    "tests/integration/identity/test_onboarding.py",
    "tests/unit/shared/test_body.py",
    "tests/unit/shared/test_values.py",
}
BANNED_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "manager", "managers", "misc"}
MAY_PRINT = {"keystead/cli.py", "keystead/process.py"}
STARTED_BY_NAME = {"keystead/__main__.py", "keystead/cli.py"}
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(root|home|Users|tmp|work)/")
INDEX_ADDRESS = re.compile(r"--(extra-)?index-url|--find-links|https?://")
LEFTOVER_NOTE = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")


@cache
def files() -> tuple[str, ...]:
    """Every text file of ours, by its path from the root."""
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    ours = [path for path in paths if path.suffix in TEXT and "__pycache__" not in path.parts]
    return tuple(sorted(str(path.relative_to(ROOT)) for path in ours))


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse(text_of(path))


def modules(*folders: str) -> list[str]:
    return [path for path in files() if path.endswith(".py") and path.startswith(folders)]


def lines_with(pattern: re.Pattern[str], paths: list[str]) -> list[str]:
    return [
        f"{path}:{number}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_module_opens_with_a_line_on_what_it_is_about() -> None:
    silent = [path for path in modules("") if not (ast.get_docstring(tree_of(path)) or "").strip()]
    assert [path for path in silent if text_of(path).strip()] == [], "an empty file needs none"


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path}: {function.name}"
        for path in modules("")
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_file_is_longer_than_one_can_keep_in_mind() -> None:
    long = {path for path in modules("") if text_of(path).count("\n") > FILE_LINES_MAX}
    assert long - TOO_LONG == set()
    assert TOO_LONG - long == set(), "split since: take them off the list"


def test_no_file_is_named_for_nothing() -> None:
    named = [path for path in files() if BANNED_NAMES & {*re.split(r"[/_.-]", path.lower())}]
    assert named == []


def test_nothing_prints_but_what_talks_to_a_person() -> None:
    printing = {
        path
        for path in modules(*CODE)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "pprint")
    }
    assert printing - MAY_PRINT == set()


def test_no_path_of_a_machine_is_written_down() -> None:
    assert lines_with(MACHINE_PATH, [path for path in files() if not path.endswith("test_tidy.py")]) == []


def test_requirements_name_no_index() -> None:
    assert lines_with(INDEX_ADDRESS, [path for path in files() if path.startswith("requirements")]) == []


def test_no_note_to_oneself_is_left_over() -> None:
    assert lines_with(LEFTOVER_NOTE, list(files())) == []


def test_no_module_is_without_a_reader() -> None:
    """What nobody imports is dead; migrations and programs are started by name."""
    imported = {name for path in modules(*CODE) for name in imports_of(path)}
    dead = [
        path
        for path in modules(*CODE)
        if dotted(path) not in imported
        and path not in STARTED_BY_NAME
        and not path.endswith("__init__.py")
        and "/migrations/versions/" not in path
    ]
    assert dead == []


def dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(path: str) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_rules_look_at_every_folder(folder: str) -> None:
    assert any(path.startswith(f"{folder}/") for path in files())
