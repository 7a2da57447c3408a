"""The design system keeps what it promises: text that can be read, in both schemes, by everyone."""

import re
from pathlib import Path

import pytest

import services.portal

FOLDER = Path(services.portal.__file__).parent
STYLES = (FOLDER / "static" / "keystead.css").read_text(encoding="utf-8")
TEXT, EDGE = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11
# What is written, and on what.
PAIRS = [
    ("ink", "ground", TEXT),
    ("ink", "surface", TEXT),
    ("ink", "sunken", TEXT),
    ("ink-soft", "ground", TEXT),
    ("ink-soft", "surface", TEXT),
    ("ink-soft", "sunken", TEXT),
    ("accent", "ground", TEXT),
    ("accent", "surface", TEXT),
    ("on-accent", "accent", TEXT),
    ("on-accent", "accent-strong", TEXT),
    ("good", "surface", TEXT),
    ("good", "good-ground", TEXT),
    ("bad", "surface", TEXT),
    ("bad", "bad-ground", TEXT),
    ("on-bad", "bad", TEXT),
    ("on-bad", "bad-strong", TEXT),
    ("line-strong", "surface", EDGE),
    ("focus", "ground", EDGE),
    ("focus", "surface", EDGE),
    ("warm", "sunken", EDGE),
    ("accent", "sunken", EDGE),
]


def colours(scheme: str) -> dict[str, str]:
    light, _, dark = STYLES.partition("@media (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
    return found | (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark)) if scheme == "dark" else {})


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back", "least"), PAIRS)
def test_what_is_shown_stands_out_from_what_is_behind_it(scheme: str, front: str, back: str, least: float) -> None:
    found = colours(scheme)
    darker, lighter = sorted((luminance(found[front]), luminance(found[back])))
    assert (lighter + 0.05) / (darker + 0.05) >= least


def test_every_colour_of_one_scheme_is_in_the_other() -> None:
    light, _, dark = STYLES.partition("@media (prefers-color-scheme: dark)")
    names = [set(re.findall(r"--([a-z-]+): #", part)) for part in (light, dark)]
    assert names[0] == names[1]


def test_parts_take_their_colours_from_the_system_alone() -> None:
    parts = STYLES[STYLES.index("*,\n*::before") :]
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgb\(|hsl\(", parts) == []
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", parts))
    assert used <= set(re.findall(r"--([a-z0-9-]+):", STYLES))


def test_every_class_of_a_template_has_a_style() -> None:
    styled = set(re.findall(r"\.([a-z][a-z-]*)", STYLES))
    pages = [path.read_text(encoding="utf-8") for path in (FOLDER / "templates").iterdir()]
    names = {name for page in pages for value in re.findall(r'class="([^"{]*)"', page) for name in value.split()}
    assert names - styled == set()
