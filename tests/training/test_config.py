"""Settings from YAML, JSON and the command line, and what a wrong one is answered with."""

import ast
import contextlib
import dataclasses
import inspect
import math
import re

import pytest
from transformers import TrainingArguments

from arccse_hf.cli.command import note_new_name
from arccse_hf.errors import UserError
from arccse_hf.training import config as config_module
from arccse_hf.training.arguments import ArcCSETrainingArguments
from arccse_hf.training.config import parse_arguments, read_values
from arccse_hf.training.fields import load_fields

REQUIRED = ["--model_name_or_path", "some-encoder", "--train_file", "text.txt"]


@pytest.fixture
def config(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_text("model_name_or_path: some-encoder\ntrain_file: [a.txt, b.txt]\nuse_cpu: true\n" + text)
        return str(path)

    return write


def test_the_command_line_goes_over_the_file(config):
    path = config("learning_rate: 1e-5\npooling: mean\nseed: 3\n")
    model, data, training = parse_arguments([path, "--seed", "4", "--train_file", "c.txt"])
    assert (model.pooling, training.learning_rate, training.seed, data.train_file) == ("mean", 1e-5, 4, ["c.txt"])


@pytest.mark.parametrize(
    ("in_file", "given"),
    [
        ("dataset_name: installed-docs\n", ["--train_file", "c.txt"]),
        ("train_file: [a.txt]\n", ["--dataset-name=squad"]),
    ],
)
def test_a_source_of_text_on_the_command_line_replaces_the_files(tmp_path, in_file, given):
    path = tmp_path / "config.yaml"
    path.write_text(f"model_name_or_path: x\nuse_cpu: true\n{in_file}")
    _, data, _ = parse_arguments([str(path), *given])
    assert (data.train_file, data.dataset_name) in ((["c.txt"], None), ([], "squad"))


def test_values_have_their_types(config):
    path = config(
        "learning_rate: 1e-5\neval_strategy: no\nbf16: no\ntriplet_dropout: yes\nmax_train_samples: null\n"
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1.0e-6}\nwarmup_steps: 0.1\n"
        "eval_data:\nload_best_model_at_end: off\n"
    )
    _, data, training = parse_arguments([path])
    assert training.learning_rate == 1e-5 and isinstance(training.learning_rate, float)
    assert (training.eval_strategy, training.bf16, training.triplet_dropout) == ("no", False, True)
    assert data.max_train_samples is None and data.eval_data is None
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-6} and training.warmup_steps == 0.1


def test_json_works_too(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_name_or_path": "x", "train_file": ["t"], "temperature": 0.1, "use_cpu": true, "seed": 1}')
    model, _, training = parse_arguments([str(path)])
    assert (model.temperature, training.seed) == (0.1, 1)


def test_the_defaults_suit_contrastive_training():
    model, data, training = parse_arguments([*REQUIRED, "--use_cpu"])
    assert (model.temperature, model.angular_margin, model.triplet_margin) == (0.05, 10.0, 0.0)
    assert (training.triplet_weight, training.small_span_ratio, training.large_span_ratio) == (0.1, 0.2, 0.4)
    assert (training.triplet_min_tokens, training.triplet_dropout, training.dataloader_drop_last) == (25, False, True)
    assert data.eval_tasks == []


@pytest.mark.parametrize(
    ("given", "tasks"),
    [
        (["--eval_data", "senteval"], ["stsb_dev", "geometry"]),
        (["--eval_data", "SentEval-1.0"], ["stsb_dev", "geometry"]),
        (["--eval_data", "mine.csv"], ["sts", "geometry"]),
        (["--eval_data", "mine.jsonl.gz"], ["sts", "geometry"]),
    ],
)
def test_data_to_measure_on_brings_its_tasks(given, tasks):
    assert parse_arguments([*REQUIRED, *given, "--use_cpu"])[1].eval_tasks == tasks


def test_a_recipe_comes_first(config):
    path = config("seed: 7\n")
    assert parse_arguments(["--temperature", "0.1", path])[2].seed == 7  # where it is no other field's value
    with pytest.raises(UserError, match=r"--train_file .*config.yaml: a recipe must come first: arccse train "):
        parse_arguments([*REQUIRED, path])
    with pytest.raises(UserError, match="belongs to no field"):
        parse_arguments([path, path])


def test_nothing_given_says_how_to_begin():
    with pytest.raises(UserError, match="^nothing is given: name a recipe .quickstart, .*--train_file"):
        parse_arguments([])
    with pytest.raises(UserError, match="^--model_name_or_path: is missing"):
        parse_arguments(["--train_file", "x"])


def test_a_value_of_a_list_sets_no_other_field(config):
    _, data, training = parse_arguments([config("text_columns: [--seed, '5']\n")])
    assert (data.text_columns, training.seed) == (["--seed", "5"], 42)


def test_other_spellings(config, capsys):
    given = ["--model=x", "--train-file", "a", "b", "--train_file", "c", "d", "--no_gather_negatives", "--use-cpu"]
    model, data, training = parse_arguments([*given, "--eval_tasks", "stsb_dev,geometry", "sickr", "--bf16", "off"])
    assert (model.model_name_or_path, data.train_file) == ("x", ["c", "d"])
    assert (training.gather_negatives, training.use_cpu, training.bf16) == (False, True, False)
    assert data.eval_tasks == ["stsb_dev", "geometry", "sickr"]
    assert capsys.readouterr().err == ""
    note_new_name.cache_clear()
    for given in ([*REQUIRED, "--snapshots", "no"], [config("snapshots: no\n")], {"snapshots": "no"}):
        given = given if isinstance(given, list) else given | {"model": "x", "train_file": "y"}
        assert not parse_arguments(given)[2].cosine_samples
    assert capsys.readouterr().err.count("note: --snapshots is called --cosine_samples now") == 1


def test_a_newer_transformers_may_have_more(monkeypatch):
    """The table is that of one version; where another is installed, its dataclasses have the last word."""
    known = tuple(field for field in load_fields() if field.name not in ("use_cpu", "optim"))
    monkeypatch.setattr(config_module, "load_fields", lambda: known)
    with pytest.raises(UserError, match="--use_cpu: there is no such field"):
        parse_arguments([*REQUIRED, "--use_cpu"])
    monkeypatch.setattr(config_module, "made_for_installed_transformers", lambda: False)
    assert parse_arguments([*REQUIRED, "--use_cpu"])[2].use_cpu


def test_help_is_grouped_and_names_every_field(capsys):
    with pytest.raises(SystemExit) as done:
        parse_arguments(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert text.index("\nmodel:") < text.index("\ndata and evaluation:") < text.index("\ntriplets and run:")
    for field in ("--angular_margin", "--train_file", "--triplet_weight", "--learning_rate", "adam_beta1"):
        assert field in text
    assert "--no_" not in text and "--train-file" not in text
    assert max(map(len, text.splitlines())) < 240


METRICS = ["stsb_dev_spearman", "geometry_alignment"]


def test_the_docstring_lists_the_defaults_that_differ_from_those_of_transformers():
    theirs = {item.name: item.default for item in dataclasses.fields(TrainingArguments)}
    ours = {item.name: item.default for item in dataclasses.fields(ArcCSETrainingArguments) if item.name in theirs}
    different = {name: default for name, default in ours.items() if default != theirs[name]}
    docstring = inspect.cleandoc(ArcCSETrainingArguments.__doc__)
    listed = re.findall(r"^    (\w+): (\S+?)[.,:](?:\s|$)", docstring, re.MULTILINE)
    assert {name: ast.literal_eval(default) for name, default in listed} == different


def better(metric):
    return metric != "geometry_alignment"


def test_the_first_metric_decides_by_default_and_any_other_can():
    training = parse_arguments([*REQUIRED, "--use_cpu"])[2]
    training.resolve_eval_settings(METRICS, better)
    assert (training.metric_for_best_model, training.greater_is_better) == ("stsb_dev_spearman", True)
    training = parse_arguments([*REQUIRED, "--use_cpu", "--metric_for_best_model", "eval_geometry_alignment"])[2]
    training.resolve_eval_settings(METRICS, better)
    assert (training.metric_for_best_model, training.greater_is_better) == ("geometry_alignment", False)


def test_a_metric_that_is_not_measured_is_refused():
    training = parse_arguments([*REQUIRED, "--use_cpu", "--metric_for_best_model", "loss"])[2]
    with pytest.raises(UserError, match="--metric_for_best_model loss: is not measured; choose from stsb_dev_spearman"):
        training.resolve_eval_settings(METRICS, better)


def test_checkpoints_are_saved_where_they_are_measured():
    training = parse_arguments([*REQUIRED, "--use_cpu", "--eval_steps", "20"])[2]
    training.resolve_eval_settings(METRICS, better)
    assert (training.save_steps, training.load_best_model_at_end) == (20, True)
    training = parse_arguments([*REQUIRED, "--use_cpu", "--eval_steps", "20", "--save_steps", "30"])[2]
    with pytest.raises(UserError, match="--save_steps 30: .*--eval_steps 20; make the first a multiple"):
        training.resolve_eval_settings(METRICS, better)
    training = parse_arguments([*REQUIRED, "--use_cpu", "--eval_strategy", "no"])[2]
    training.resolve_eval_settings(METRICS, better)
    assert not training.load_best_model_at_end


@pytest.mark.parametrize(
    ("eval_steps", "save_steps", "fits"),
    [("0.1", "0.3", True), ("0.1", "0.5", True), ("0.2", "0.3", False), ("0.5", "4", False), ("4", "0.5", False)],
)
def test_shares_of_all_steps_are_compared_with_shares(eval_steps, save_steps, fits):
    training = parse_arguments([*REQUIRED, "--use_cpu", "--eval_steps", eval_steps, "--save_steps", save_steps])[2]
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match=f"--save_steps {save_steps}: the best"):
        training.resolve_eval_settings(METRICS, better)


def test_early_stopping_needs_checkpoints():
    given = ["--early_stopping_patience", "2", "--save_strategy", "no"]
    with pytest.raises(UserError, match="--early_stopping_patience 2: needs .* --save_strategy steps"):
        parse_arguments([*REQUIRED, "--use_cpu", *given])[2].resolve_eval_settings(METRICS, better)


def test_without_anything_to_measure_nothing_is_evaluated():
    training = parse_arguments([*REQUIRED, "--use_cpu"])[2]
    training.resolve_eval_settings([], better)
    assert (training.eval_strategy, training.eval_on_start, training.load_best_model_at_end) == ("no", False, False)


def test_the_folder_of_a_run_is_called_after_its_recipe_or_its_encoder():
    assert read_values(["quickstart"])["output_dir"] == "runs/quickstart"
    text = ["--train_file", "text.txt"]
    assert read_values(["--model", "a/tiny-bert", *text])["output_dir"] == "runs/tiny-bert"
    assert read_values(["arccse-bert-base", *text])["output_dir"] == "runs/arccse-bert-base"
    assert read_values(["arccse-bert-base", *text, "--output_dir", "out"])["output_dir"] == "out"


def test_numbers_in_a_mapping_stay_as_they_are():
    """From Python they come as numbers: 0.5 had become 0, and infinity a traceback."""
    given = {"num_cycles": 0.5, "end": math.inf, "nested": {"rate": "1e-6", "on": "true"}}
    settings = {"model_name_or_path": "m", "train_file": ["t"], "output_dir": "o", "lr_scheduler_kwargs": given}
    expected = {"num_cycles": 0.5, "end": math.inf, "nested": {"rate": 1e-6, "on": True}}
    assert read_values(settings)["lr_scheduler_kwargs"] == expected
