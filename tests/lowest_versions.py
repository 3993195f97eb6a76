"""Prints requirements.txt with the lowest versions that pyproject.toml allows: `make requirements-lowest.txt`.

PyTorch and what pyproject.toml has no lower bound for stay at the pinned version, and so do the tools of the tests.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest_versions() -> list[str]:
    """Returns the lines of a requirements file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    bounds = dict(re.findall(r"^([\w.-]+)[^>]*>=([\d.]+)", "\n".join(project["dependencies"] + extras), re.MULTILINE))
    bounds.pop("torch")
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return [f"{name}=={bounds.get(name, version)}" for name, _, version in pins]


if __name__ == "__main__":
    print("\n".join(lowest_versions()))
