"""What MkDocs does besides: pages from elsewhere in the repository, generated pages, pictures for both palettes."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))

import reference  # noqa: E402

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "measurements.md",
}
"""Pages of the site that lie outside of docs/."""

GENERATED = {
    "reference/command-line.md": reference.command_line_page,
    "reference/configuration.md": reference.configuration_page,
}

_LINK = re.compile(r"(\]\()([^)#\s]+)")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(
    r'<picture><source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)"><img\s+'
    r'src="([^"]+)"([^>]*)></picture>'
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from elsewhere, the generated ones, and the files that pages offer."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for name, write in GENERATED.items():
        files.append(File.generated(config, name, content=write()))
    for folder, pattern in (("benchmarks/results", "*.json"), ("notebooks", "*.ipynb")):
        for path in sorted((ROOT / folder).glob(pattern)):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links to where their targets are on the site, and shows each picture in the palette that is on."""
    name = page.file.src_uri
    places = {target: source for source, target in PAGES.items()}
    source = places.get(name, f"docs/{name}")

    def relink(match: re.Match[str]) -> str:
        return match[1] + _site_link(match[2], source, name)

    parts = _FENCE.split(markdown)
    parts[::2] = [_PICTURE.sub(_both_palettes, _LINK.sub(relink, part)) for part in parts[::2]]
    return "".join(parts)


def _site_link(link: str, source: str, name: str) -> str:
    """Returns the link that stands in the file `source` of the repository, as the page `name` needs it."""
    if re.match(r"[a-z]+:|/", link):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    target = PAGES.get(target, target.removeprefix("docs/"))
    return posixpath.relpath(target, posixpath.dirname(name) or ".")


def _both_palettes(match: re.Match[str]) -> str:
    dark, light, attributes = match.groups()
    return f'<img src="{light}#only-light"{attributes}><img src="{dark}#only-dark"{attributes}>'
