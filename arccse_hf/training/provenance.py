"""What a run was made with: command, versions and hardware, without names of machines or people."""

import glob
import json
import os
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .arguments import ArcCSETrainingArguments

PACKAGES = ("arccse-hf", "torch", "transformers", "sentence-transformers", "accelerate", "datasets")


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a result may depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # a source tree that is on the path, but not installed
            continue
    return versions


def hardware(args: ArcCSETrainingArguments) -> str:
    """Returns the processes and the device of a run: `2 x NVIDIA H100 80GB HBM3`, `CPU (x86_64, 2 cores)`."""
    if args.device.type == "cpu":
        device = f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    elif args.device.type == "cuda":
        device = torch.cuda.get_device_name(args.device)
    else:
        device = args.device.type
    return f"{args.world_size} x {device}" if args.world_size > 1 else device


def command_line(settings: Mapping[str, object]) -> str:
    """Returns the command that gives a run again, one field per line, without tokens and folders of this machine.

    Args:
        settings: The fields that were given, on the command line or in the recipe.
    """
    lines = ["arccse train"]
    for name, value in settings.items():
        if name in ("resume_from_checkpoint", "overwrite_output_dir") or name.endswith("_token"):
            continue
        values = value if isinstance(value, list) else [value]
        lines.append(f"--{name} {shlex.join(map(_argument, values))}")
    return " \\\n    ".join(lines)


def without_folder(name: str) -> str:
    """Returns a path or glob of this machine without its folders, which say who ran it; any other name as it is."""
    is_path = name.startswith(("/", "~", ".")) or glob.has_magic(name) or Path(name).exists()
    return Path(name).name if is_path and not name.startswith("package:") else name


def _argument(value: object) -> str:
    """A value as a command line has it."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return without_folder(str(value))
