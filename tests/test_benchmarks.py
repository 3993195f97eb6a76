"""The measuring scripts, each at a tiny size: it runs, and the numbers in its JSON agree with each other."""

import json
import statistics
import sys
from importlib import import_module
from pathlib import Path

import pytest
import safetensors.torch
import torch
from backbones import WORDS
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import measuring
import tables

from arccse_hf.model import length_batching

SCRIPTS = [
    *"train_throughput step_profile objective_cost scaling gpu evaluation_speed search_index".split(),
    *"pretrain_small_bert own_documents encode_launches demo_load streaming_resume".split(),
]
WORDS_IN_A_SENTENCE, TOKENS = 12, 14  # with [CLS] and [SEP]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    """200 distinct sentences of 12 words."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(WORDS), (200, WORDS_IN_A_SENTENCE), generator=generator).tolist()
    file = tmp_path_factory.mktemp("text") / "sentences.txt"
    file.write_text("\n".join(" ".join(WORDS[index] for index in row) for row in rows))
    return str(file)


@pytest.fixture
def report_of(tmp_path):
    """The JSON of a script, given its arguments."""

    def report_of(script: str, *arguments: str) -> dict:
        output = tmp_path / "report.json"
        import_module(script).main([*arguments, "--output", str(output)])
        return json.loads(output.read_text())

    return report_of


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script, capsys):
    with pytest.raises(SystemExit) as ended:
        import_module(script).main(["--help"])
    assert ended.value.code == 0
    assert "--output" in capsys.readouterr().out


def test_train_throughput_gives_the_ratio_of_the_medians(report_of, text, monkeypatch):
    report = report_of(
        "train_throughput", "--text", text, "--models", "tiny", "--lengths", "8", "--batches", "4",
        "--comparisons", "fp32", "everything", "--steps", "1", "--repeats", "2",
    )  # fmt: skip
    assert report["machine"]["torch"] == torch.__version__
    assert [(result["length"], result["batch"]) for result in report["results"]] == [(8, 4)]
    for result in report["results"]:
        seconds = {side: statistics.median(values) for side, values in result["seconds_per_step"].items()}
        assert all(len(values) == 2 for values in result["seconds_per_step"].values())
        assert result["sentences_per_second"]["arccse_hf fp32"] == pytest.approx(
            result["batch"] / seconds["arccse_hf fp32"]
        )
        theirs = seconds["sentence-transformers fp32"]
        assert result["ratios"]["fp32"] == pytest.approx(theirs / seconds["arccse_hf fp32"])
        assert result["ratios"]["everything"] == pytest.approx(theirs / seconds["arccse_hf bf16"])
    monkeypatch.setattr(tables, "read", lambda name: report)
    assert "| 8 | 4 |" in tables.train_throughput("any")


def test_tables_are_those_of_the_recorded_results():
    texts = [page.read_text(encoding="utf-8") for page in tables.PAGES]
    assert list(map(tables.render, texts)) == texts, "run python benchmarks/tables.py"
    shown = [name for name in tables.TABLES if any(f"<!-- table: {name} -->" in text for text in texts)]
    assert shown == list(tables.TABLES)


def test_step_profile_accounts_for_the_time_and_the_tokens(report_of, text, monkeypatch):
    report = report_of(
        "step_profile", "--text", text, "--model", "tiny", "--batch", "4", "--steps", "2", "--repeats", "3",
        "--peak_sizes", "64",
    )  # fmt: skip
    assert report["tokens_per_step"] == {
        "real": 2 * 4 * TOKENS, "computed": 2 * 4 * TOKENS, "squares": 2 * 4 * TOKENS**2, "padding": 0,
    }  # fmt: skip
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert sum(report["seconds"].values()) == pytest.approx(report["profiled_seconds_per_step"], rel=0.05)
    groups = ["matmul", "attention", "dropout", "layer norm", "gelu", "embedding", "loss", "optimiser", "data loading"]
    assert all(report["shares"][group] > 0 for group in groups)
    # Nothing but the forward operation that made it says where a node of the backward pass belongs.
    called = {operation["name"]: operation["group"] for operation in report["operations"]}
    assert called["aten::addmm"] == called["autograd::engine::evaluate_function: AddmmBackward0"] == "matmul"
    assert len(report["seconds_per_step"]) == 3 and len(report["peak_flops_per_second"]) == 4
    rate = report["flops_per_step"] / statistics.median(report["seconds_per_step"])
    assert report["utilisation"] == pytest.approx(rate / max(report["peak_flops_per_second"]))
    monkeypatch.setattr(tables, "read", lambda name: report)
    assert f"| {2 * 4 * TOKENS} (0.0 %) |" in tables.step_profile()


@pytest.mark.extras
def test_objective_cost_sets_steps_beside_those_of_simcse(report_of, text, monkeypatch):
    report = report_of(
        "objective_cost", "--text", text, "--model", "tiny", "--batch", "4", "--triplet_min_tokens", "5",
        "--steps", "1", "--repeats", "3",
    )  # fmt: skip
    tokens = {name: counted["real"] for name, counted in report["tokens_per_step"].items()}
    pairs, triplets = 2 * 4 * TOKENS, 3 * 4 * TOKENS
    again = tokens["ArcCSE"] - pairs - triplets
    assert tokens == {
        "SimCSE": pairs, "ArcCon": pairs, "ArcCSE": tokens["ArcCSE"], "ArcCSE, plain": pairs + triplets,
        "ArcCSE, Matryoshka": tokens["ArcCSE, Matryoshka"], "ArcCon, last 2 layers": pairs,
    }  # fmt: skip
    assert again == report["triplets"]["embedded again"] * triplets
    assert 0 <= report["triplets"]["violated"] <= report["triplets"]["embedded again"]
    assert report["triplets"]["embedded again"] in (0.25, 0.5, 1)  # one of four at least; more than half are all
    for name in report["over_simcse"]:
        seconds, simcse = report["processor_seconds_per_step"][name], report["processor_seconds_per_step"]["SimCSE"]
        ratios = sorted(own / other for own, other in zip(seconds, simcse, strict=True))
        assert report["over_simcse"][name]["processor_time"] == pytest.approx(ratios[1])
    assert "triplets' look" in report["stages"]["ArcCSE"] and "triplets' forward" in report["stages"]["ArcCSE, plain"]
    assert all(report["stages"][name]["backward"] > 0 for name in report["stages"])
    monkeypatch.setattr(tables, "read", lambda name: report)
    time = report["over_simcse"]["ArcCSE, plain"]["time"]
    assert f"| ArcCSE, plain | {time:.2f} |" in tables.objective_cost()


@pytest.mark.extras
def test_scaling_fits_exponents_and_launches_processes(report_of, text, monkeypatch):
    report = report_of(
        "scaling", "--text", text, "--batch", "4", "--prepared", "50", "100", "200", "--trained", "8", "16",
        "--batches", "2", "4", "--cached", "4", "16", "--steps", "1", "--repeats", "1",
    )  # fmt: skip
    for part in ("preparation", "training"):
        assert all(seconds > 0 for seconds in report[part]["seconds"])
        assert report[part]["exponent"] == pytest.approx(slope(report[part]["sentences"], report[part]["seconds"]))
    assert report["batch"]["exponent"] == pytest.approx(slope([2, 4], report["batch"]["seconds_per_sentence"]))
    (one,), (two,) = report["processes"]["seconds_per_step"].values()
    assert report["processes"]["weak_scaling_efficiency"] == pytest.approx(one / two)
    names = ("batch 4", "batch 4, chunks of 4", "batch 16, chunks of 4")
    plain, cached, largest = (report["memory"][name]["peak_resident"] for name in names)
    assert report["memory"]["peak_ratio"] == pytest.approx(largest / cached)
    assert report["memory"]["peak_ratio_to_no_cache"] == pytest.approx(largest / plain)
    assert all(report["memory"][name]["peak_resident"] > 2**26 for name in names)
    monkeypatch.setattr(tables, "read", lambda name: report)
    assert "training on 8 / 16 sentences" in tables.scaling()
    assert "batch 16, chunks of 4 | largest" in tables.memory()


def test_streaming_resume_gives_the_batch_that_came_next(report_of, text, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    report = report_of(
        "streaming_resume", "--text", text, "--tokenizer", str(tmp_path / "tokenizer"), "--batch", "4",
        "--shuffle_buffer", "20", "--rows", "12", "240",
    )  # fmt: skip
    assert [result["rows"] for result in report["results"]] == [12, 240]
    assert all(result["same_batch"] and result["seconds"] > 0 for result in report["results"])


def test_search_index_compares_with_the_exact_search(report_of, text, monkeypatch):
    report = report_of("search_index", "--text", text, "--model", "tiny", "--sentences", "150", "--queries", "10")
    assert report["documents"] == 150 and [index["graphs"] for index in report["indexes"]] == [1, 10]
    for index in report["indexes"]:
        assert index["recall_at_10"] >= 0.98 and index["largest_difference"] < 1e-6
    monkeypatch.setattr(tables, "read", lambda name: report)
    assert "| index, graphs: 10 |" in tables.search_index()


def test_gpu_goes_on_behind_a_part_that_fails(report_of, monkeypatch):
    def fail(length, batch, options):
        raise ImportError("no such package")

    monkeypatch.setattr(import_module("gpu"), "compare_trainers", fail)
    report = report_of("gpu", "--tiny", "--modes", "eager", "padded", "--parts", "steps", "trainers")
    assert report["trainers"] == [{"shape": "tiny", "length": 32, "batch": 4, "error": "ImportError: no such package"}]
    assert [step["grad_cache_chunk_size"] for step in report["steps"]] == [None, None, 8, 8] * 2
    for step in report["steps"]:
        seconds = statistics.median(step["seconds_per_step"])
        assert step["sentences_per_second"] == pytest.approx(step["batch"] / seconds)
        assert step["utilisation"] == pytest.approx(
            step["flops_per_step"] / seconds / report["peak_flops_per_second"][step["precision"]]
        )


def test_gpu_measures_batches_in_one_piece_too(report_of, monkeypatch):
    limits, split_by_length = [], length_batching.split_by_length

    def spy(lengths, limit, overhead):
        limits.append((limit, overhead))
        return split_by_length(lengths, limit, overhead)

    monkeypatch.setattr(length_batching, "split_by_length", spy)
    for mode, limit in {"eager": length_batching._ON_A_CPU, "padded": (2 * 4 * 32,) * 2}.items():
        (plain, _) = report_of("gpu", "--tiny", "--parts", "steps", "--modes", mode, "--precisions", "bf16")["steps"]
        assert plain["padded_tokens_per_step"] == 2 * 4 * 32
        assert limits[0] == limit
        limits.clear()


def test_gpu_compares_triplets_that_cost_nothing_with_a_graph_of_all(report_of):
    (result,) = report_of("gpu", "--tiny", "--parts", "triplets")["triplets"]
    pairs, exact, plain = (statistics.median(values) for values in result["seconds"].values())
    assert result["exact_to_pairs_alone"] == pytest.approx(exact / pairs)
    assert result["plain_to_pairs_alone"] == pytest.approx(plain / pairs)


def test_gpu_sets_both_trainers_beside_each_other(report_of):
    (result,) = report_of("gpu", "--tiny", "--parts", "trainers")["trainers"]
    ours, theirs = (statistics.median(values) for values in result["seconds_per_step"].values())
    assert result["ratio"] == pytest.approx(theirs / ours)


def test_the_formula_counts_what_a_step_computes():
    config = BertConfig(
        vocab_size=50, num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=512,
        attn_implementation="eager",
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    attention_mask = torch.ones(2, 100, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(torch.randint(50, (2, 100)), attention_mask).last_hidden_state.sum().backward()
    tokens = measuring.Tokens()
    tokens.add(attention_mask)
    assert measuring.training_flops(model, config, tokens) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_tokens_leave_padding_out():
    tokens = measuring.Tokens()
    tokens.add(torch.tensor([[1, 1, 1], [1, 0, 0]]))
    tokens.add(torch.tensor([[1, 1]]))
    assert tokens == measuring.Tokens(real=6, computed=8, squares=9 + 1 + 4)
    assert tokens.per(2) == measuring.Tokens(real=3, computed=4, squares=7)


def slope(sizes, seconds) -> float:
    """Of a line through logarithms, by torch."""
    design = torch.stack([torch.tensor(sizes, dtype=torch.float64).log(), torch.ones(len(sizes))], dim=1)
    target = torch.tensor(seconds, dtype=torch.float64).log()
    return torch.linalg.lstsq(design.double(), target[:, None]).solution[0].item()


def test_pretraining_makes_an_encoder_from_text_and_stops_in_time(text, tmp_path, capsys):
    from arccse_hf.training.backbone import load_backbone
    from arccse_hf.training.model_arguments import ModelArguments

    sizes = ["--layers", "1", "--width", "64", "--vocabulary", "300", "--batch", "8", "--use_cpu"]
    run = ["--text", text, "--output", str(tmp_path / "bert"), *sizes]
    arguments = [*run, "--minutes", "0"]
    import_module("pretrain_small_bert").main(arguments)
    assert "bert: 1 steps" in capsys.readouterr().out
    model, tokenizer = load_backbone(ModelArguments(str(tmp_path / "bert")))
    assert model.config.hidden_size == 64
    assert tokenizer.tokenize(f"The {WORDS[0]}") == ["the", WORDS[0]]
    with pytest.raises(SystemExit):
        import_module("pretrain_small_bert").main(arguments)
    assert "bert: is finished" in capsys.readouterr().err
    (tmp_path / "bert" / "config.json").unlink()  # as if it had been stopped before its end
    import_module("pretrain_small_bert").main(arguments)
    assert "bert: 2 steps" in capsys.readouterr().out
    (tmp_path / "bert" / "config.json").unlink()
    import_module("pretrain_small_bert").main([*run, "--steps", "4", "--half"])
    assert "bert: 4 steps" in capsys.readouterr().out
    weights = safetensors.torch.load_file(tmp_path / "bert" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


def test_pretraining_has_the_loss_of_transformers_over_all_positions():
    from transformers import BertForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = import_module("pretrain_small_bert").MaskedPositions(BertConfig(vocab_size=50, **sizes)).eval()
    whole = BertForMaskedLM(model.config).eval()
    whole.load_state_dict(model.state_dict())
    input_ids = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(0))
    labels = input_ids.where(torch.arange(9) % 4 == 1, -100)
    attention_mask = (torch.arange(9) < torch.tensor([[9], [7], [6], [9]])).long()
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
    for name, gradient in _gradients(whole, inputs).items():
        torch.testing.assert_close(_gradients(model, inputs)[name], gradient, atol=1e-6, rtol=1e-4)


def _gradients(model, inputs) -> dict[str, torch.Tensor]:
    """Of the loss, which stands there too."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in model.named_parameters()}}


@pytest.mark.extras
def test_demo_load_counts_the_answers(report_of, text, encoder, monkeypatch, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    report = report_of(
        "demo_load", "--model", encoder, "--corpus", text, "--users", "3", "--seconds", "3", "--pause", "0.2"
    )
    assert report["texts"] == 200 and report["ends"] == {"answered": report["answers"]} and report["answers"] >= 3
    assert 0 < report["seconds"]["p50"] <= report["seconds"]["p99"] <= report["seconds"]["max"]
