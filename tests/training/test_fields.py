"""The table of fields: that it is the dataclasses', and that every number in it has a range."""

import dataclasses
import math

import pytest

from arccse_hf.cli.options import Interval
from arccse_hf.commands import VERBS
from arccse_hf.errors import UserError
from arccse_hf.training import field_rules, fields
from arccse_hf.training.arguments import ArcCSETrainingArguments, DataArguments
from arccse_hf.training.config import train_command
from arccse_hf.training.model_arguments import ModelArguments

FIELDS = {field.name: field for field in fields.load_fields()}
NUMBERS = [field for field in FIELDS.values() if field.type in ("int", "float")]


def test_the_table_is_that_of_the_dataclasses(tmp_path, monkeypatch):
    """`make fields` writes it anew, after a change of the arguments or another version of transformers."""
    written = fields.TABLE.read_text()
    monkeypatch.setattr(fields, "TABLE", tmp_path / "fields.json")
    fields.write_table()
    assert written == fields.TABLE.read_text()


def test_commas_separate_numbers_choices_and_names_of_modules():
    options = {(verb, option.name): option for verb, (build, _) in VERBS.items() for option in build().options}
    separated = {
        key: "query,value" if option.name in field_rules.COMMAS else ",".join(option.choices[:2]) or "2,1"
        for key, option in options.items()
        if option.many and (option.type in ("int", "float") or len(option.choices) > 1 or option.commas)
    }
    expected = {("evaluate", "truncate_dims"), ("study", "seeds")}
    expected |= {("train", name) for name in ("matryoshka_dims", "report_to", "lora_target_modules", "pair_weights")}
    assert expected <= separated.keys()
    for key, text in separated.items():
        assert options[key].read(text) == options[key].read(text.split(",")) and len(options[key].read(text)) == 2, key


def test_every_rule_is_of_a_field():
    rules = field_rules.INTERVALS, field_rules.CHOICES, field_rules.REASONS, field_rules.ALIASES, field_rules.OLD_NAMES
    for names in (*rules, field_rules.COMMAS, field_rules.COMMON_TRAINER_FIELDS):
        assert set(names) <= set(FIELDS)
    for name, meant in field_rules.SUGGESTIONS.items():
        assert name not in FIELDS and (meant in FIELDS or " " in meant)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_number_has_a_range_that_holds_its_default(field):
    allowed = Interval(field.interval)
    assert field.default is None or field.default in allowed
    for wrong in ("nan", "inf", "-inf", "1e308", "-2"):
        with pytest.raises(UserError, match=f"^--{field.name} {wrong}: must be a "):
            field.read(wrong)


@pytest.mark.parametrize("name", [name for name in field_rules.INTERVALS if name not in ("temperature", "local_rank")])
def test_the_arguments_keep_to_the_ranges_too(name):
    """They are made without a command line as well."""
    for arguments in (ModelArguments, DataArguments, ArcCSETrainingArguments):
        if name in {field.name for field in dataclasses.fields(arguments)}:
            given = {"model_name_or_path": "x"} if arguments is ModelArguments else {}
            for wrong in (math.nan, math.inf, -2, "1", True):
                with pytest.raises(UserError, match=f"^--{name} {wrong}: must be a number"):
                    arguments(**given, **{name: wrong})


@pytest.mark.parametrize("name", [name for name in field_rules.CHOICES if name != "do_train"])
def test_the_arguments_refuse_what_arccse_has_not(name):
    wrong = {"true": False, "false": True}.get(field_rules.CHOICES[name][0], "group_by_length")
    with pytest.raises(UserError, match=f"^--{name} {wrong}: must be .*{field_rules.REASONS.get(name, '')}$"):
        ArcCSETrainingArguments(**{name: wrong})


def test_help_lists_no_field_that_has_one_value():
    listed = train_command(fields.load_fields()).notes.rpartition(": ")[2].split(", ")
    assert {"adam_beta1", "dataloader_in_order"} <= set(listed)
    refused = {
        "do_predict",
        "label_smoothing_factor",
        "enable_jit_checkpoint",
        "use_liger_kernel",
        "neftune_noise_alpha",
    }
    assert not refused & set(listed)
