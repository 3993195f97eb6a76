"""What the package says about itself: one version everywhere, and requirement files that agree with pyproject.toml."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from lowest_versions import lowest_versions
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
    allowed = ranges()
    lowest = [Requirement(line) for line in lowest_versions()]
    assert [item.name for item in lowest] == list(pins("requirements.txt"))
    for item in lowest:
        version = str(item.specifier).removeprefix("==")
        assert allowed[canonicalize_name(item.name)].specifier.contains(version), item
    assert f"transformers=={re.search(r'>=([0-9.]+)', str(allowed['transformers']))[1]}" in map(str, lowest)


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


@pytest.mark.extras
def test_the_dockerfile_has_no_flaw_that_hadolint_knows():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
