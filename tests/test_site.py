"""The site: its reference names everything there is, and the built pages need nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from doc_text import COMMANDS, ROOT

from arccse_hf.training.fields import load_fields

sys.path.insert(0, str(ROOT / "docs" / "site"))

import reference

RESOURCES = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "srcset"), ("iframe", "src")}


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, page: Path):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def test_the_reference_has_every_command_option_and_field():
    page = reference.command_line_page()
    for name, command in COMMANDS.items():
        section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]
        assert f"```bash\n{command.example}\n```" in section
        missing = (
            [] if name == "train" else [o.name for o in command.options if o.group and f"`--{o.name}`" not in section]
        )
        assert not missing, name
    page = reference.configuration_page()
    fields = load_fields()
    assert len(fields) > 150
    for field in fields:
        assert f"`--{field.name}`" in page if field.group else f"`{field.name}`" in page, field.name
    assert (
        "`--temperature`\n:   Divides the cosines in ArcCon.<br><small>number from 0.001 to 100, default `0.05`</small>"
        in page
    )
    assert "`arccse study margin`\n:   ArcCon's angular margin in degrees" in page


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a warning of MkDocs, such as a broken link, fails the build."""
    if not find_spec("material") or not find_spec("mkdocstrings"):
        pytest.skip("mkdocs-material and mkdocstrings are not installed: make docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.extras
def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for tag, attributes in Elements(page).found:
            for name in (name for element, name in RESOURCES if element == tag):
                assert not re.match(r"(https?:)?//", attributes.get(name, "")), f"{page.name}: {attributes}"
            assert "mermaid" not in attributes.get("class", ""), f"{page.name}: its script would come from elsewhere"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", text), sheet.name


@pytest.mark.extras
def test_links_pictures_and_anchors_of_built_pages_lead_somewhere(site):
    elements = {page: Elements(page).found for page in site.rglob("*.html") if page.name != "404.html"}
    ids = {page: {attributes.get("id") for _, attributes in found} for page, found in elements.items()}
    for page, found in elements.items():
        for tag, attributes in found:
            link = attributes.get("href", "") if tag == "a" else attributes.get("src", "")
            if not link or re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name}: {link}"
            if tag == "a" and anchor and target in ids:
                assert anchor in ids[target] or anchor.startswith("__"), f"{page.name}: {link}"


@pytest.mark.extras
def test_pages_are_searched_have_palettes_and_texts_for_pictures(site):
    assert "own documents" in (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for page in site.rglob("*.html"):
        if page.parent.name != "example":
            text = page.read_text(encoding="utf-8")
            assert text.count("prefers-color-scheme") >= 3, page.name
            found = Elements(page).found
            assert all(attributes.get("alt") for tag, attributes in found if tag == "img"), page.name
            assert page.name == "404.html" or sum(tag == "h1" for tag, _ in found) == 1, page.name
