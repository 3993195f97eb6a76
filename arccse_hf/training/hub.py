"""What goes to a model hub: the exported folder, once, at the end; checkpoints where `--hub_strategy` asks for them."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError  # of the HTTP client that this version has
from transformers.trainer_utils import HubStrategy

from ..errors import UserError, one_line
from .arguments import ArcCSETrainingArguments
from .checkpoints import without_folders

logger = logging.getLogger("arccse_hf")

Result = TypeVar("Result")

CHECKPOINT_STRATEGIES = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)


def open_repository(args: ArcCSETrainingArguments) -> str:
    """Creates the repository where it is missing, before anything is trained.

    Returns:
        Its whole id, such as `user/name`.

    Raises:
        UserError: The hub cannot be reached, or does not let this user write there.
    """
    name = args.hub_model_id or Path(str(args.output_dir)).absolute().name
    return _ask(
        lambda: HfApi().create_repo(name, token=args.hub_token, private=args.hub_private_repo, exist_ok=True).repo_id,
        f"--push_to_hub True: {name}",
        "log in with `hf auth login`, or leave it out and upload the finished folder later",
    )


def push_checkpoint(checkpoint: Path, repo_id: str, args: ArcCSETrainingArguments) -> None:
    """Uploads a checkpoint where the strategy asks for it; a failure is a warning, for training can go on.

    Args:
        checkpoint: Its folder.
        repo_id: Of the hub.
        args: Of the run. `checkpoint` keeps the newest one in `last-checkpoint`; `all_checkpoints` keeps all.
    """
    if args.hub_strategy not in CHECKPOINT_STRATEGIES:
        return
    target = "last-checkpoint" if args.hub_strategy == HubStrategy.CHECKPOINT else checkpoint.name
    contents: dict[str, Path | bytes]
    contents = {path.relative_to(checkpoint).as_posix(): path for path in checkpoint.rglob("*") if path.is_file()}
    contents |= without_folders(checkpoint)
    try:
        _ask(
            lambda: HfApi().create_commit(
                repo_id=repo_id,
                operations=[CommitOperationAdd(f"{target}/{name}", content) for name, content in contents.items()],
                commit_message=f"Checkpoint of step {checkpoint.name.removeprefix('checkpoint-')}",
                token=args.hub_token,
                revision=args.hub_revision,
            ),
            f"{checkpoint.name}: was not uploaded",
            "training goes on",
        )
    except UserError as error:
        logger.warning("%s", error)


def push_exported(folder: Path, exported: Sequence[str], repo_id: str, args: ArcCSETrainingArguments) -> None:
    """Uploads the model with its card, and nothing else that the run or the user has in the folder.

    Args:
        folder: Of the run.
        exported: The names of the model's files in it.
        repo_id: Of the hub.
        args: Of the run.

    Raises:
        UserError: The upload failed; the model is still in `folder`.
    """
    names = sorted({f"{name.partition('/')[0]}/*" if "/" in name else name for name in exported})
    revision = ["--revision", args.hub_revision] if args.hub_revision else []
    again = shlex.join(["hf", "upload", repo_id, str(folder), ".", *revision, *(f"--include={name}" for name in names)])
    info = _ask(
        lambda: HfApi().upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(exported),
            commit_message="Trained with arccse_hf",
            token=args.hub_token,
            revision=args.hub_revision,
        ),
        f"--push_to_hub True: {repo_id}",
        f"the model is whole in {folder}; `{again}` tries again",
    )
    logger.info("uploaded to %s", info.commit_url)


def _ask(call: Callable[[], Result], what: str, way_out: str) -> Result:
    try:
        return call()
    except (OSError, ValueError, HTTPError) as error:
        raise UserError(f"{what}: {one_line(error)}; {way_out}") from error
