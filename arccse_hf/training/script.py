"""The training script, from arguments to the exported model: what `run_arccse.py` and `arccse train` run."""

import contextlib
import copy
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import SaveStrategy

from ..compat import without_zero3_init
from ..data.streaming import TextStream
from ..errors import UserError
from ..evaluation.suite import fingerprint, split_dim
from ..evaluation.tables import ResultTable, dims_table, print_table, table_console
from ..inference.export import export
from ..inference.process_group import on_first_process, world_size
from ..model.configuration_arccse import Pooling, Projection
from ..model.modeling_arccse import ArcCSEForContrastiveLearning
from ..paths import no_empty_folder, read_json, write_json
from ..run_folder import (
    COSINES,
    FINAL_CHECKPOINT,
    MEASURED_ON,
    RESULTS,
    SETTINGS,
    TRAINING,
    begin_run,
    check_output_dir,
    finish_run,
    is_done,
    kept_step,
    metrics_of,
    remove_checkpoints,
)
from .arguments import ArcCSETrainingArguments, DataArguments
from .backbone import load_backbone
from .checkpoints import check_checkpoint, find_checkpoint, is_complete, newest_complete
from .config import build_arguments, read_values
from .console import quiet_libraries
from .cosine_samples import save_cosine_sample
from .disk_space import full_disk_in_words, weight_bytes
from .distributed import patient_barrier
from .hub import push_exported
from .judging import judge_trained, measure_exported, show_verdict
from .model_arguments import ModelArguments
from .model_card import model_card
from .preparation import Setup, prepare
from .provenance import command_line, hardware, package_versions
from .stop_signals import stop_at_once
from .trackers import final_line, trackers_open
from .verdict import Verdict

logger = logging.getLogger("arccse_hf")

NOT_BETTER = 3
"""Exit status where `--require_better` is not met."""


@dataclass
class TrainResult:
    """What a run leaves.

    Args:
        output_dir: The folder of the trained model, which `SentenceTransformer` and `AutoModel` open.
        before: Metrics of the untrained encoder by name; empty where nothing was measured.
        after: The same of the trained one.
        verdict: Whether it became better; None where there was nothing to judge it by, and on other processes.
    """

    output_dir: str
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None


def main(argv: Sequence[str]) -> int:
    """Trains, measures and exports as `argv` says; see `parse_arguments`.

    Returns:
        The exit status: `NOT_BETTER` where the verdict has to be "better" and is not.
    """
    settings = read_values(argv)
    model_args, data_args, args = build_arguments(settings)
    result = run(model_args, data_args, args, settings=settings)
    if args.process_index != 0:
        return 0
    show_results(result)
    is_better = result.verdict is not None and result.verdict.outcome == "better"
    return NOT_BETTER if args.require_better and not is_better else 0


def run(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ArcCSETrainingArguments,
    texts: Dataset | None = None,
    settings: Mapping[str, object] | None = None,
    callbacks: Callable[[str | None], Sequence[TrainerCallback]] = lambda metric: (),
) -> TrainResult:
    """Trains, measures and exports; all processes must call.

    Args:
        model_args: What to start from.
        data_args: What to train on and what to measure.
        args: How to train.
        texts: Rows of text to train on, instead of `data_args`' source.
        settings: The fields that were given, for the command in the model card.
        callbacks: Returns more callbacks of the trainer, given the name of the metric that chooses the checkpoint.

    Raises:
        UserError: A setting or an input is wrong; the message names it.
    """
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO if args.should_log else logging.WARNING)
    with quiet_libraries(args.log_level), contextlib.ExitStack() as trackers:
        with no_empty_folder(Path(args.output_dir, TRAINING)):
            resume = check_start(data_args, args)
            set_seed(args.seed)
            model, tokenizer = load_backbone(model_args)
            # What was left open is decided now: the card and the settings say what it became.
            model_args = replace(
                model_args,
                pooling=cast(Pooling, model.config.pooling),
                projection=cast(Projection, model.config.projection),
            )
            setup = prepare(model, tokenizer, data_args, in_subfolder(args), texts)
            output_dir, args = args.output_dir, copy.copy(setup.trainer.args)  # evaluation settings fit to the tasks
            args.output_dir = output_dir
            for callback in callbacks(args.metric_for_best_model):
                setup.trainer.add_callback(callback)
            args.hub_model_id = setup.trainer.hub_model_id or args.hub_model_id  # with its owner
            trackers.enter_context(trackers_open(setup.trainer))
            trained = fit(setup, resume, settings)
        with stoppable(setup):
            before, after = measure(setup)
            card = partial(
                model_card,
                model_args,
                data_args,
                args,
                counts=setup.counts,
                tasks=setup.suite.tasks if setup.suite else (),
                before=before,
                settings=settings,
            )
            with full_disk_in_words(Path(args.output_dir), 3 * weight_bytes(setup.trainer.model)):
                write_records(setup, trained, before, after, model_args, data_args)
                verdict, after = export_trained(setup, data_args, before, after, card)
        trackers.close()
        setup.trainer.end()
        return TrainResult(args.output_dir, before, after, verdict)


def stoppable(setup: Setup) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a signal ends a process that trained alone; a launcher's processes it ends anyway."""
    if world_size() > 1:
        return contextlib.nullcontext()
    training = Path(setup.trainer.args.output_dir)

    def what_is_there() -> str:
        if is_done(training.parent):
            return f"the model in {training.parent} is whole"
        checkpoint = newest_complete(training)
        goes_on = f"{checkpoint} is written, --resume_from_checkpoint True goes on"
        return goes_on if checkpoint else "no checkpoint is written"

    return stop_at_once(what_is_there)


def in_subfolder(args: ArcCSETrainingArguments) -> ArcCSETrainingArguments:
    """Returns the arguments of the trainer, whose checkpoints and log stand in a subfolder of the model's."""
    args, folder = copy.copy(args), Path(args.output_dir)
    args.output_dir = str(folder / TRAINING)
    if args.push_to_hub and not args.hub_model_id:
        args.hub_model_id = folder.absolute().name
    return args


def check_start(data_args: DataArguments, args: ArcCSETrainingArguments) -> str | bool | None:
    """Returns what `Trainer.train` is to resume from; checks what can be checked before anything is loaded."""
    resuming = (args.resume_from_checkpoint or "false").lower() != "false"
    check_output_dir(args.output_dir, overwrite=args.overwrite_output_dir, resume=resuming)
    if data_args.streaming and args.max_steps <= 0:
        raise UserError("--streaming True: a stream has no end to count epochs by; say how long with --max_steps N")
    return resume_argument(args)


def fit(setup: Setup, resume: str | bool | None, settings: Mapping[str, object] | None = None) -> dict[str, float]:
    """Trains, with cosines of a sample before it.

    Args:
        setup: Of the run.
        resume: What to go on from.
        settings: The fields that were given, for the command in the run's mark.

    Returns:
        Trainer's metrics of training; its speed is that of the steps alone.
    """
    trainer, args = setup.trainer, setup.trainer.args
    folder = Path(args.output_dir)
    if trainer.is_world_process_zero():
        facts = {"versions": package_versions(), "hardware": hardware(args)}
        if settings:
            facts["command"] = command_line(settings)
        begin_run(folder.parent, resume=bool(resume), overwrite=args.overwrite_output_dir, facts=facts)
    clock, trainer.saves_last_step = trainer.clock, True
    if args.cosine_samples:
        save_cosine_sample(trainer, setup.sample, setup.suite, folder / COSINES["before"])
    metrics = trainer.train(resume_from_checkpoint=resume).metrics
    if isinstance(setup.rows, TextStream):
        setup.counts = setup.rows.report_counts(trainer.accelerator)
    metrics |= clock.metrics()
    if clock.seconds:
        logger.info(
            "%s steps in %s s, %s rows per second; evaluations and checkpoints not counted",
            f"{clock.steps:,}",
            f"{clock.seconds:,.1f}",
            f"{metrics['train_samples_per_second']:,.1f}",
        )
    return metrics


def measure(setup: Setup) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the metrics of the untrained encoder and of the trained one; empty where nothing is measured.

    They stand in the log, which a resumed run has from its beginning; only weights that were not measured yet are
    measured here.
    """
    trainer, suite = setup.trainer, setup.suite
    if suite is None:
        return {}, {}

    def measured(step: int) -> dict[str, float]:
        lines = [metrics_of(line) for line in trainer.state.log_history if line["step"] == step]
        complete = [metrics for metrics in lines if metrics.keys() >= set(suite.metric_names())]
        return complete[-1] if complete else {}

    kept = kept_step(asdict(trainer.state), trainer.args.load_best_model_at_end)
    return measured(0), measured(kept) or metrics_of(trainer.evaluate())


def write_records(
    setup: Setup,
    trained: dict[str, float],
    before: dict[str, float],
    after: dict[str, float],
    model_args: ModelArguments,
    data_args: DataArguments,
) -> None:
    """Writes the log, the scores and the settings of a run, and cosines of a sample after it."""
    trainer, folder = setup.trainer, Path(setup.trainer.args.output_dir)
    if trainer.args.cosine_samples:
        save_cosine_sample(trainer, setup.sample, setup.suite, folder / COSINES["after"])
    trainer.save_state()
    if trainer.is_world_process_zero():
        scores = {f"before_{name}": value for name, value in before.items()}
        scores |= {f"eval_{name}": value for name, value in after.items()}
        measured_on = {task.name: fingerprint(task) for task in setup.suite.tasks} if setup.suite else {}
        write_json(folder.parent / RESULTS, trained | scores | {MEASURED_ON: measured_on})
        training = trainer.args.to_dict() | {"output_dir": str(folder.parent)}
        write_json(folder / SETTINGS, {"model": asdict(model_args), "data": asdict(data_args), "training": training})


def export_trained(
    setup: Setup,
    data_args: DataArguments,
    before: dict[str, float],
    after: dict[str, float],
    card: Callable[..., ModelCard],
) -> tuple[Verdict | None, dict[str, float]]:
    """Judges what was trained, exports it or what it started from, and marks the run as done.

    Args:
        setup: Of the run.
        data_args: Of the run.
        before: Metrics of the untrained encoder.
        after: Metrics of the trained one.
        card: Gives the model card, from the verdict and the metrics of what is exported.

    Returns:
        The verdict, and the metrics of what is exported: a mixture or the start encoder, where the verdict says so. On
        other processes than the main one there is no verdict, and `after` is returned.
    """
    trainer, training = setup.trainer, Path(setup.trainer.args.output_dir)
    folder = training.parent
    verdict = None
    # Through a checkpoint, because the weights may be sharded over processes. It is not what goes to the hub.
    final = training / FINAL_CHECKPOINT
    push, trainer.args.push_to_hub = trainer.args.push_to_hub, False
    trainer.save_model(str(final))
    trainer.args.push_to_hub = push
    wait_for_verdict = patient_barrier()  # a corpus of a million texts takes its time
    if trainer.is_world_process_zero():
        with without_zero3_init():
            trained = ArcCSEForContrastiveLearning.from_pretrained(final, dtype=torch.float32)
            if setup.verdict_tasks:
                verdict = judge_trained(
                    trained, setup.start, setup.tokenizer, setup.verdict_tasks, data_args, trainer.args
                )
                if setup.suite is not None and verdict.keeps_start and before:
                    after = before
                elif setup.suite is not None and (verdict.keeps_start or verdict.share < 1):
                    precision = trainer.accelerator.autocast
                    after = measure_exported(trained, setup.tokenizer, setup.suite, trainer.args, precision)
                scores = {f"eval_{name}": value for name, value in after.items()}
                results = read_json(folder / RESULTS) | scores | verdict.metrics()
                write_json(folder / RESULTS, results | {"verdict": verdict.as_dict()})
            if line := final_line(after, verdict):
                trainer.log(line)
                trainer.save_state()
            exported = export(trained, setup.tokenizer, folder, str(card(verdict=verdict, after=after)))
        shutil.rmtree(final)
        finish_run(folder)
        if not trainer.args.keep_checkpoints:
            remove_checkpoints(folder)
        elif trainer.args.save_strategy == SaveStrategy.NO:  # that of the last step was for what is done now
            shutil.rmtree(training / f"checkpoint-{trainer.state.global_step}", ignore_errors=True)
        if push and verdict is not None and verdict.keeps_start:
            logger.warning("--push_to_hub True: nothing is uploaded, since the start encoder is what was exported")
        elif push:
            push_exported(folder, exported, trainer.hub_model_id, trainer.args)
    wait_for_verdict()
    return verdict, after


def resume_argument(args: ArcCSETrainingArguments) -> str | bool | None:
    """Returns what `Trainer.train` resumes from: a checkpoint's folder, True where there is none yet, or None.

    Raises:
        UserError: There is no such checkpoint, or it lacks a file; nothing has been loaded then.
    """
    given = args.resume_from_checkpoint
    if given is None or given.lower() == "false":
        return None
    newest = given.lower() == "true"
    if not newest and not is_complete(Path(given)):
        raise UserError(
            f"--resume_from_checkpoint {given}: is no checkpoint folder (it has no readable trainer_state.json)"
        )
    places = (Path(args.output_dir, TRAINING), Path(args.output_dir))  # the second is that of earlier versions
    checkpoint: Path | None = Path(given)
    if newest:
        found = (on_first_process(partial(find_checkpoint, place)) for place in places)
        checkpoint = next((path for path in found if path is not None), None)
    if checkpoint is None:
        return True
    check_checkpoint(checkpoint, checksums=False)
    return str(checkpoint)


def show_results(result: TrainResult) -> None:
    """Prints the table at the end, and how to use what was trained."""
    before, after, output_dir = result.before, result.after, result.output_dir
    console = table_console()
    if after:
        header = ["metric", *(["before"] if before else []), "after"]
        rows = [
            [name, *([f"{before[name]:.4f}"] if before else []), f"{value:.4f}"]
            for name, value in after.items()
            if split_dim(name)[1] is None
        ]
        print_table(ResultTable("before and after training", header, rows, set()), console)
    if dimensions := dims_table(after):
        heading, *rows = dimensions
        print_table(ResultTable("what is exported, by number of dimensions", heading, rows, set()), console)
    if result.verdict is not None:
        show_verdict(result.verdict, console)
    # Not wrapped, so that it can be copied at any width; no markup, since a folder may be called [red].
    plain: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
    console.print(f"The model is in {output_dir}. To use it:\n", **plain)
    console.print("    from sentence_transformers import SentenceTransformer", **plain)
    console.print(f'    embeddings = SentenceTransformer("{output_dir}").encode(["your text"])\n', **plain)
