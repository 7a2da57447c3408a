"""The pages of ``docs/`` that are made from the code: a test holds them to it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from keystead import app, asyncapi
from keystead.app import SERVICES
from keystead.settings import ProcessSettings
from services.gateway.settings import GatewaySettings
from shared.permissions import PERMISSIONS, Reach, Role
from shared.settings import SECTIONS

MADE = "<!-- Made from the code by `make docs`; change it there. -->"


class Setting(NamedTuple):
    """One place a value is read from, and what it says to each who reads it."""

    yaml_path: str
    variables: Sequence[str]
    default: str
    says: str


def write(folder: Path) -> None:
    """Write every page into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def check(folder: Path) -> list[str]:
    """What is wrong with the pages in ``folder``, a line each: nothing, if they are as ``write`` would write them."""
    return [f"{folder / name} {fault}" for name, text in pages().items() if (fault := _fault(folder / name, text))]


def _fault(page: Path, text: str) -> str:
    if not page.is_file():
        return "is not there"
    written = page.read_text(encoding="utf-8")
    if written == text:
        return ""
    lines = zip_longest(written.split("\n"), text.split("\n"))
    return f"is stale from line {next(number for number, (old, new) in enumerate(lines, 1) if old != new)} on"


def pages() -> Mapping[str, str]:
    """The text of each page, by its file's name."""
    return {
        "settings.md": _settings_page(),
        "permissions.md": _permissions_page(),
        "events.md": _events_page(),
        "openapi.json": _json(app.document()),
        "asyncapi.json": _json(asyncapi.document()),
    }


def _settings_page() -> str:
    rows = [
        (f"`{each.yaml_path}`" if each.yaml_path else "", " ".join(f"`{name}`" for name in each.variables), *each[2:])
        for each in settings()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            MADE,
            "",
            "One YAML file (`--config`, `KEYSTEAD_CONFIG`) in LiteLLM's names; an environment variable goes before it.",
            "`os.environ/NAME` as a whole value is that variable. A wrong value or an unknown name stops the start.",
            "",
            *_table(("in the file", "variable", "default", "says"), rows),
            "",
        ]
    )


def settings() -> list[Setting]:
    """Every setting, in the file's order of sections; what several services read is there once."""
    found: dict[tuple[str, tuple[str, ...]], Setting] = {}
    classes: list[type[BaseModel]] = [GatewaySettings, ProcessSettings, *(each.settings for each in SERVICES)]
    for settings_class in classes:
        for info in settings_class.model_fields.values():
            each = _setting(info)
            found.setdefault((each.yaml_path, tuple(each.variables)), each)
    return sorted(found.values(), key=_section)


def _section(each: Setting) -> int:
    name = each.yaml_path.partition(".")[0]
    return SECTIONS.index(name) if name else len(SECTIONS)


def _setting(info: FieldInfo) -> Setting:
    choices = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else []
    yaml_path = ".".join(str(part) for each in choices if isinstance(each, AliasPath) for part in each.path)
    # A section that is read as a whole (`model_list`) has a name without a dot, as a variable has; but not in capitals.
    variables = [each for each in choices if isinstance(each, str) and each.isupper()]
    sections = [each for each in choices if isinstance(each, str) and not each.isupper()]
    says = f"{info.description}{_names_within(info)}"
    return Setting(yaml_path or "".join(sections), variables, _default(info.default), says)


def _names_within(info: FieldInfo) -> str:
    if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
        return f" ({', '.join(f'`{name}`' for name in info.annotation.model_fields)})"
    return ""


def _default(default: Any) -> str:
    if default is PydanticUndefined:
        return "made by `up`"
    if default is None or default in ((), []) or isinstance(default, BaseModel):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{list(default) if isinstance(default, tuple) else default}`"


def _permissions_page() -> str:
    rows = [
        (f"`{operation}`", row.kind, *(_cell(row.cell(role)) for role in Role), row.note)
        for operation, row in PERMISSIONS.items()
    ]
    return "\n".join(
        [
            "# Who may do what",
            "",
            MADE,
            "",
            "The table that every request is held to. *any*: on anybody's; *own*: on one's own; empty: not at all.",
            "Where what it does is *open*, no credential of the table is needed.",
            "",
            *_table(("operation", "does", *(f"`{role}`" for role in Role), "condition"), rows),
            "",
        ]
    )


def _cell(reach: Reach) -> str:
    return "" if reach is Reach.NONE else reach.name.lower()


def _events_page() -> str:
    rows = [
        (
            f"`{each.event.type_name()}`",
            each.service,
            " ".join(f"`{name}`" for name in each.event.model_fields),
            each.says,
        )
        for each in asyncapi.told()
    ]
    return "\n".join(
        [
            "# Events",
            "",
            MADE,
            "",
            "What each service publishes on NATS, as `<service>.<event>.<stream>`, in the envelope of CloudEvents 1.0.",
            "`asyncapi.json` has every shape. What is `sealed_…` can be opened by identity only; money is in nano-USD.",
            "",
            *_table(("event", "service", "fields", "says"), rows),
            "",
        ]
    )


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
