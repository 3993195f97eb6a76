"""What the package says about itself: one version everywhere, and requirement files that agree with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> dict[str, str]:
    """Returns the version per package of a requirements file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in requirements}


def ranges() -> dict[str, Requirement]:
    """Returns what pyproject.toml allows, per package, extras included."""
    lines = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def test_pinned_versions_are_allowed():
    allowed = ranges()
    for name, version in pins("requirements.txt").items():
        assert allowed[name].specifier.contains(version), f"{name}=={version} in requirements.txt"


def test_lowest_versions_are_the_lower_bounds():
    """All but PyTorch, whose lower bound is not tried, and the tools of the tests."""
    lowest, pinned, extras = pins("requirements-lowest.txt"), pins("requirements.txt"), PROJECT["optional-dependencies"]
    assert lowest.keys() == pinned.keys(), "a package is missing in one of requirements.txt, requirements-lowest.txt"
    tools = {canonicalize_name(Requirement(line).name) for line in extras["test"]} - {"matplotlib"}
    for name, item in ranges().items():
        if name in pinned.keys() & {*tools, "torch"}:
            assert lowest[name] == pinned[name], name
        elif name in pinned:
            bound = re.search(r">=([\d.]+)", str(item.specifier))[1]
            assert Requirement(f"{name}=={bound}").specifier.contains(lowest[name]), f"{item}, but {lowest[name]}"


def test_one_version_everywhere():
    source = (ROOT / "arccse_hf" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_configuration_files_are_valid_yaml():
    files = [ROOT / ".pre-commit-config.yaml", *ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("configs/**/*.yaml")]
    assert len(files) > 10
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path
