"""The private interfaces of `arccse_hf.compat` are there and do what it is called for; and no other file uses one."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import datasets
import evaluate
import fsspec.asyn
import pytest
import transformers
from datasets import Dataset, DatasetBuilder
from huggingface_hub import constants
from tiny import make_trainer
from torch.utils.data import RandomSampler, SequentialSampler
from transformers.integrations import deepspeed
from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

import arccse_hf
from arccse_hf import compat
from arccse_hf.data.training_texts import load_training_texts
from arccse_hf.errors import UserError
from arccse_hf.inference.open import load_encoder

PACKAGE = Path(arccse_hf.__file__).parent


def test_zero3_is_out_of_force_for_a_while(monkeypatch):
    monkeypatch.setattr(deepspeed, "is_accelerate_available", lambda: True)
    config = object.__new__(HfDeepSpeedConfig)  # without the package deepspeed, which its __init__ asks for
    config.is_zero3 = lambda: True
    deepspeed.set_hf_deepspeed_config(config)
    try:
        assert is_deepspeed_zero3_enabled()
        with pytest.raises(RuntimeError), compat.without_zero3_init():
            assert not is_deepspeed_zero3_enabled()
            raise RuntimeError
        assert is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()


def test_the_trainer_tells_its_sampler_and_its_batch_size(tmp_path, tokenizer, sentences):
    rows = Dataset.from_dict({"anchor": tokenizer(sentences)["input_ids"]})
    kinds = {"random": RandomSampler, "sequential": SequentialSampler}
    for strategy, kind in kinds.items():
        trainer = make_trainer(tmp_path, rows, tokenizer, train_sampling_strategy=strategy)
        assert isinstance(compat.train_sampler(trainer), kind)
        assert len(compat.train_sampler(trainer)) == len(rows)
        assert compat.train_batch_size(trainer) == 8


def test_a_fingerprint_tells_datasets_apart():
    first, again, second = (Dataset.from_dict({"text": [text]}) for text in ("one", "one", "two"))
    prints = [compat.dataset_fingerprint(dataset) for dataset in (first, again, second)]
    assert all(isinstance(value, str) for value in prints)
    assert prints[0] == prints[1] != prints[2]
    assert compat.dataset_fingerprint(first.map(lambda row: {"text": "two"})) != prints[0]


def test_fsspec_gets_a_new_lock():
    lock = fsspec.asyn.get_lock()
    compat.reset_fsspec_lock()
    assert fsspec.asyn.get_lock() is not lock


CLASSES = {
    "Trainer": transformers.Trainer,
    "PreTrainedConfig": transformers.PreTrainedConfig,
    "PreTrainedModel": transformers.PreTrainedModel,
}
SOURCES = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "compat.py"}


@pytest.mark.parametrize("hook", compat.HOOKS)
def test_hooks_are_in_the_library_and_used(hook):
    owner, name = hook.split(".")
    assert any(re.search(rf"\b{name}\b", source) for source in SOURCES.values())
    assert hasattr(CLASSES[owner], name) or re.search(rf"self\.{name}\b", source_of(CLASSES[owner]))


@functools.cache
def source_of(owner):
    return "".join(inspect.getsource(base) for base in owner.__mro__ if base is not object)


def our_classes():
    """Yields the classes of the package outside of `model/`, whose private names transformers documents for authors."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "arccse_hf."):
        if not module.name.startswith("arccse_hf.model") and not module.name.endswith("__main__"):
            members = vars(importlib.import_module(module.name)).values()
            yield from {item for item in members if isinstance(item, type) and item.__module__ == module.name}


def test_private_methods_that_are_overridden_are_listed_and_take_what_the_library_gives():
    found = set()
    for ours in our_classes():
        foreign = [base for base in ours.__mro__ if not base.__module__.startswith("arccse_hf")]
        for name, method in vars(ours).items():
            owner = next((base for base in foreign if name in vars(base)), None)
            # Metrics and builders are subclassed by such methods, as their documentation says.
            documented = issubclass(ours, evaluate.Metric | DatasetBuilder)
            if documented or owner is None or not re.match("_[^_]", name) or not inspect.isfunction(method):
                continue
            found.add(f"{owner.__name__}.{name}")
            parameters = inspect.signature(method).parameters
            if not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
                assert list(parameters) == list(inspect.signature(getattr(owner, name)).parameters), name
    assert found <= compat.HOOKS.keys()


def test_no_other_file_uses_a_private_name_of_a_library():
    """A private name is one that the file itself does not define; two are public in spite of their underscore."""
    public = {"_replace", "_exit"}  # of named tuples and of `os`
    hooks = {hook.split(".")[1] for hook in compat.HOOKS}
    used = []
    for path, source in sorted(SOURCES.items()):
        nodes = list(ast.walk(ast.parse(source)))
        attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        known = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)} | public | hooks
        known |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
        names = {node.attr for node in attributes} - known
        used += [f"{path.relative_to(PACKAGE)}: {name}" for name in sorted(names) if re.match("_[^_]", name)]
    assert used == []


def test_a_hub_out_of_reach_is_asked_once_and_its_caches_are_used(monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    compat.use_caches_where_hub_is_out_of_reach.cache_clear()
    with pytest.raises(UserError, match="MODEL nobody/nothing: cannot be opened"):
        load_encoder("nobody/nothing")
    with pytest.raises(UserError, match="--dataset_name nobody/rows"):
        load_training_texts(dataset_name="nobody/rows")
    assert constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    assert caplog.text.count("the hub (http://127.0.0.1:9) cannot be reached") == 1
    assert "Retrying" not in caplog.text
    compat.use_caches_where_hub_is_out_of_reach.cache_clear()
