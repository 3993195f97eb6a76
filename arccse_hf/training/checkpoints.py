"""Checkpoints that are whole: sealed when they are written, checked when they are read.

A checkpoint is written into a staging folder, sealed with a manifest (the size and SHA-256 of every file), and moved to
its place in one step. A folder named `checkpoint-N` is therefore complete, however the process that wrote it ended, and
what happens to its files later is found out before a run goes on from it.
"""

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..run_folder import STATE

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STAGING = ".checkpoint-in-progress"
REPLACED = ".checkpoint-replaced"
_PREFIX = "checkpoint-"


def publish_checkpoint(staged: Path, target: Path, run: dict[str, object]) -> None:
    """Seals a checkpoint that is written, and moves it to its place.

    Args:
        staged: Folder of the files, on the same file system as `target`.
        target: Folder that is to hold them. What it holds already is replaced.
        run: What the checkpoint was trained with; `read_manifest` returns it.
    """
    paths = sorted(path for path in staged.rglob("*") if path.is_file())
    mode = (staged / STATE).stat().st_mode
    for path in paths:
        path.chmod(mode)  # safetensors writes weights for their owner alone
    files = {
        path.relative_to(staged).as_posix(): {"size": path.stat().st_size, "sha256": _checksum(path)} for path in paths
    }
    (staged / MANIFEST).write_text(json.dumps({"files": files, "run": run}, indent=1) + "\n", encoding="utf-8")
    if target.exists():
        replaced = target.with_name(REPLACED)
        shutil.rmtree(replaced, ignore_errors=True)
        target.replace(replaced)
    staged.replace(target)
    shutil.rmtree(target.with_name(REPLACED), ignore_errors=True)


def without_folders(checkpoint: Path) -> dict[str, bytes]:
    """Returns what others may see in place of the files of a sealed checkpoint that name a folder of this machine."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    if state["best_model_checkpoint"]:
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
    content = json.dumps(state, indent=2).encode()
    manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][STATE] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {STATE: content, MANIFEST: json.dumps(manifest, indent=1).encode()}


def read_manifest(checkpoint: Path) -> dict[str, dict] | None:
    """Returns `files` and `run` of a sealed checkpoint; None for one that was written without a manifest.

    Raises:
        UserError: The manifest cannot be read.
    """
    path = checkpoint / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return {"files": dict(manifest["files"]), "run": dict(manifest["run"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{checkpoint}: {MANIFEST} is damaged; {_way_out(checkpoint)}") from error


def find_checkpoint(output_dir: str | os.PathLike) -> Path | None:
    """Returns the newest complete checkpoint of a folder, or None. Incomplete ones are removed, and named in the log.

    A checkpoint is incomplete where the process died while it was written. One that was complete and lost or changed
    files later is none of those: `check_checkpoint` tells.
    """
    newest = newest_complete(output_dir)
    later = [path for path in _checkpoints(Path(output_dir)) if newest is None or _step(path) > _step(newest)]
    incomplete = sorted(later, key=_step, reverse=True)
    if incomplete:
        names = ", ".join(checkpoint.name for checkpoint in incomplete)
        logger.warning("%s: removed %s, which a process that died had left unfinished", output_dir, names)
        for checkpoint in incomplete:
            shutil.rmtree(checkpoint)
    return newest


def newest_complete(output_dir: str | os.PathLike) -> Path | None:
    """Returns the newest complete checkpoint of a folder, or None; nothing is removed."""
    found = sorted(_checkpoints(Path(output_dir)), key=_step, reverse=True)
    return next(filter(is_complete, found), None)


def is_complete(checkpoint: Path) -> bool:
    """Returns whether a checkpoint was written to its end. Trainer's state is the last file of unsealed ones."""
    if (checkpoint / MANIFEST).is_file():
        return True
    try:
        return "global_step" in json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def check_checkpoint(checkpoint: Path, *, checksums: bool) -> None:
    """Makes sure that a checkpoint still holds what was written.

    Args:
        checkpoint: Its folder.
        checksums: Whether to read all files and compare their SHA-256. Otherwise, their sizes are compared.

    Raises:
        UserError: A file is missing or damaged; the message names it, and the checkpoint before this one.
    """
    problem = _problem(checkpoint, checksums)
    if problem is not None:
        raise UserError(f"{checkpoint}: {problem}; {_way_out(checkpoint)}")


def checkpoint_before(folder: Path, step: int) -> Path | None:
    """Returns the newest checkpoint of a folder from before `step` that is complete and has all its files, or None."""
    earlier = (checkpoint for checkpoint in _checkpoints(folder) if _step(checkpoint) < step)
    usable = (path for path in sorted(earlier, key=_step, reverse=True) if is_complete(path) and _is_usable(path))
    return next(usable, None)


def remove_leftovers(output_dir: str | os.PathLike) -> None:
    """Removes what runs that were killed while they wrote a checkpoint left in `output_dir`."""
    for name in (STAGING, REPLACED):
        shutil.rmtree(Path(output_dir) / name, ignore_errors=True)


def _problem(checkpoint: Path, checksums: bool) -> str | None:
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return _problem_of_unsealed(checkpoint, checksums)
    for name, expected in manifest["files"].items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} is damaged: it has {path.stat().st_size:,} bytes instead of {expected['size']:,}"
    if checksums:
        for name, expected in manifest["files"].items():
            if _checksum(checkpoint / name) != expected["sha256"]:
                return f"{name} is damaged: its SHA-256 differs from that of the file that was written"
    return None


def _problem_of_unsealed(checkpoint: Path, contents: bool) -> str | None:
    """Of a checkpoint that was written without a manifest: by its list of files, and by what each says of itself."""
    names = {path.name for path in checkpoint.iterdir()} if checkpoint.is_dir() else set()
    if not is_complete(checkpoint):
        return f"is no checkpoint folder (it has no readable {STATE})"
    deepspeed = any(name.startswith("global_step") for name in names)
    needed = {
        "model.safetensors": ("model.safetensors", "pytorch_model", "adapter_model", "global_step"),
        "optimizer.pt": ("optimizer", "global_step"),
        "scheduler.pt": () if deepspeed else ("scheduler",),
        "rng_state.pth": ("rng_state",),
    }
    for name, starts in needed.items():
        if starts and not any(other.startswith(starts) for other in names):
            return f"{name} is missing"
    paths = [path for path in checkpoint.rglob("*") if path.is_file()] if contents else []
    return next((f"{path.relative_to(checkpoint)} is damaged" for path in paths if not _is_readable(path)), None)


def _is_readable(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        if path.suffix in (".pt", ".pth", ".bin"):  # archives, whose entries have checksums
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
    return True


def _way_out(checkpoint: Path) -> str:
    """What to do about a checkpoint that cannot be used."""
    before = checkpoint_before(checkpoint.parent, _step(checkpoint))
    if before is not None:
        return f"--resume_from_checkpoint {before} goes on from the one before"
    return f"there is no checkpoint before it in {checkpoint.parent}; --overwrite_output_dir starts anew"


def _is_usable(checkpoint: Path) -> bool:
    try:
        return _problem(checkpoint, checksums=False) is None
    except UserError:
        return False


def _checkpoints(folder: Path) -> Iterable[Path]:
    return (path for path in folder.glob(f"{_PREFIX}*") if path.is_dir() and _step(path) >= 0)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else -1


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
