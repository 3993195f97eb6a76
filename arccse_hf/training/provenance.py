"""What a run was made with: versions and hardware, without names of machines or people."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

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
