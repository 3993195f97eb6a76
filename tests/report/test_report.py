"""The report: the series behind its pictures, the page that holds them, and what it says of what is missing."""

import html
import io
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from arccse_hf.__main__ import main
from arccse_hf.errors import UserError
from arccse_hf.report import figures, write_report
from arccse_hf.report import runs as reading
from arccse_hf.report.figures import Style
from arccse_hf.report.runs import Run, read_runs
from arccse_hf.report.scores import headline, score_table

EVALUATIONS = {0: (0.50, 0.40, -1.0), 2: (0.70, 0.30, -1.5), 4: (0.60, 0.25, -2.0)}


def history(best=2):
    """The log of 5 steps: measured at 0, 2 and 4, the weights of step `best` kept and measured once more."""

    def measured(step, spearman, alignment, uniformity):
        return {
            "step": step, "eval_dev_spearman": spearman, "eval_geometry_alignment": alignment,
            "eval_geometry_uniformity": uniformity, "eval_runtime": 9.0,
        }  # fmt: skip

    lines = []
    for step in range(6):
        if step:
            lines.append({"step": step, "loss": 1.0, "arccon_loss": 1 / step, "learning_rate": 1e-5 * (5 - step)})
        if step in (2, 3):
            lines[-1] |= {"triplet_loss": 0.1, "triplets_violated": 0.25 * (step - 1)}
        if step in EVALUATIONS:
            lines.append(measured(step, *EVALUATIONS[step]))
    return [*lines, {"step": 5, "train_runtime": 61.0, "train_loss": 1.0}, measured(5, *EVALUATIONS[best])]


def make_run(folder, *, margin=10.0, leave_out=(), **files):
    """A run's folder; keyword arguments replace the content of a file."""
    sts = {"task": "dev", "cosines": [0.1, 0.9, math.nan], "scores": [0.0, 5.0, 2.0], "num_pairs": 1500}
    kinds = {"positives": [0.9, 0.8], "negatives": [0.1, -0.1], "closer": [0.7, 0.8], "farther": [0.6, math.nan]}
    content = {
        "trainer_state": {
            "global_step": 5, "best_model_checkpoint": "a/checkpoint-2", "log_history": history(),
        },
        "all_results": {
            "before_dev_spearman": 0.5, "before_geometry_alignment": 0.4, "eval_dev_spearman": 0.71234,
            "eval_geometry_alignment": 0.3, "eval_runtime": 9.0, "train_runtime": 61.0, "train_loss": 1.0,
        },
        "run_settings": {
            "model": {"angular_margin": margin, "model_name_or_path": "bert-base-uncased", "pooling": "cls"},
            "data": {"train_file": ["a.txt", "b.txt"]},
            "training": {"load_best_model_at_end": True, "weight_decay": 0.0, "output_dir": str(folder)},
            "version": 1,  # of a later one, say
        },
        "run_status": {"status": "done"},
        "cosines_before": kinds | {"num_rows": 9, "sts": sts},
        "cosines_after": kinds | {"num_rows": 9, "sts": sts},
    }  # fmt: skip
    folder.mkdir(parents=True)
    for name, value in (content | files).items():
        if name not in leave_out:
            (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_the_series_are_those_of_the_log(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "run")])
    assert run.missing == [] and run.margin == 10.0
    assert reading.training_series(run, "arccon_loss") == ([1, 2, 3, 4, 5], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert reading.training_series(run, "triplets_violated") == ([2, 3], [0.25, 0.5])
    assert reading.training_series(run, "nothing") == ([], [])
    assert reading.main_metric(run) == "dev_spearman"
    assert reading.evaluation_series(run, "dev_spearman") == ([0, 2, 4], [0.5, 0.7, 0.6])
    assert reading.geometry_path(run) == ([-1.0, -1.5, -2.0], [0.4, 0.3, 0.25])
    assert reading.sts_points(run, "before") == ([0.0, 5.0], [0.1, 0.9])
    assert reading.cosines(run, "after", "farther") == [0.6]
    table = score_table([run])
    assert {name: [(score.before, score.after) for score in scores] for name, scores in table.items()} == {
        "dev_spearman": [(0.5, 0.71234)],
        "geometry_alignment": [(0.4, 0.3)],
    }


def test_the_last_evaluation_stands_where_the_kept_weights_come_from():
    measured = [
        {"step": 0, "eval_mrr": 0.1},
        {"step": 9, "train_runtime": 1.0},
        {"step": 9, "eval_mrr": 0.4},
    ]
    state = {"global_step": 9, "log_history": measured}
    assert reading.evaluation_series(Run("a", state), "mrr") == ([0, 9], [0.1, 0.4])
    best = state | {"best_global_step": 6, "best_model_checkpoint": "checkpoint-6"}
    assert reading.evaluation_series(Run("a", best), "mrr") == ([0, 6], [0.1, 0.4])
    kept_last = {"training": {"load_best_model_at_end": False}}
    assert reading.evaluation_series(Run("a", best, settings=kept_last), "mrr") == ([0, 9], [0.1, 0.4])


def test_the_main_metric_is_what_the_run_chose_by():
    state = {"log_history": [{"step": 0, "eval_mr_accuracy": 0.5, "eval_dev_spearman": 0.6, "eval_runtime": 1.0}]}
    chosen = {"training": {"metric_for_best_model": "eval_mr_accuracy"}}
    gone = {"training": {"metric_for_best_model": "cr_accuracy"}}
    assert reading.main_metric(Run("a", state, settings=chosen)) == "mr_accuracy"
    assert reading.main_metric(Run("a", state, settings=gone)) == reading.main_metric(Run("a", state)) == "dev_spearman"
    assert reading.main_metric(Run("a", {"log_history": [{"step": 1, "loss": 1.0}]})) is None


@pytest.mark.parametrize("margin", [0.0, 10.0, 45.0])
def test_on_the_boundary_the_positive_with_its_margin_scores_as_the_negative(margin):
    (first, last), (low, high) = figures.decision_boundary(margin)
    for share in (0.0, 0.3, 1.0):
        theta_i, theta_j = first + share * (last - first), low + share * (high - low)
        assert math.cos(math.radians(theta_i + margin)) == pytest.approx(math.cos(math.radians(theta_j)))
    assert (first, high) == (0.0, 90.0)  # it crosses the whole square


def drawn(draw):
    axes = Figure().add_subplot()
    draw(axes)
    return axes


def test_every_run_looks_the_same_in_every_picture_and_no_two_alike():
    styles = [Style.of(index) for index in range(24)]
    assert len(set(styles)) == 24 and len({style.colour for style in styles[:6]}) == 6
    one, two = styles[:2]
    series = [("a", one, ([-1.0, -1.4, -2.0], [0.4, 0.3, 0.2])), ("b", two, ([-1.0, -3.0], [0.4, 0.1]))]
    for axes in (
        drawn(figures.curves("t", series)),
        drawn(figures.plane(series)),
        drawn(figures.boundaries([("a", one, 10.0), ("b", two, 0.0)])),
    ):
        colours = {
            label.partition(":")[0]: handle.get_color()
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        assert (colours["a"], colours["b"]) == (one.colour, two.colour)


def test_the_arrow_leads_from_the_first_to_the_last_evaluation():
    path = ([-1.0, -1.4, -2.0], [0.4, 0.3, 0.2])
    axes = drawn(figures.plane([("moved", Style.of(0), path), ("measured once", Style.of(1), ([-1.0], [0.4]))]))
    (arrow,) = axes.texts
    assert (arrow.xyann, arrow.xy) == ((-1.0, 0.4), (-2.0, 0.2))


def test_boundaries_of_equal_margins_are_both_seen():
    styles = [Style.of(index) for index in range(3)]
    draw = figures.boundaries([("a", styles[0], 10.0), ("b", styles[1], 10.0), ("c", styles[2], 30.0)])
    ends = [
        (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in drawn(draw).lines if len(line.get_xdata())
    ]
    assert ends == [([0, 90], [0, 90]), ([0, 80], [10, 90]), ([0, 80], [10, 90]), ([0, 60], [30, 90])]
    png = next(iter(figures.render("boundaries", "", draw).files.values()))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    areas = [(pixels == ImageColor.getrgb(style.colour)).all(axis=-1).sum() for style in styles]
    assert areas[0] == pytest.approx(areas[1], rel=0.3)  # they share a line half and half
    assert min(areas[:2]) > 0.3 * areas[2]  # which is a third longer than that of c


def scored(values, num_pairs=None):
    """A cosine file of which only the scored pairs matter."""
    values = list(values)
    sts = {"task": "dev", "cosines": values, "scores": list(range(len(values))), "num_pairs": num_pairs or len(values)}
    return {"num_rows": 9, "sts": sts}


def spearman(values):
    return float(np.corrcoef(np.argsort(np.argsort(values)), np.arange(len(values)))[0, 1])


def drawn_noise(noise):
    return (np.arange(300) + noise * np.random.default_rng(0).normal(size=300)).tolist()


def test_the_page_holds_every_run_and_needs_nothing_else(tmp_path):
    first = make_run(tmp_path / "<img src=x onerror=alert(1)>", margin=0.0)
    scores = {"eval_dev_spearman": 0.8, "before_dev_spearman": math.nan}
    second = make_run(tmp_path / "arccse_10", all_results=scores, leave_out=("cosines_before", "cosines_after"))
    page = write_report([first, second, first], tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text and "arccse_10" in text
    assert "<h1>arccse_10 80.00, &lt;img src=x onerror=alert(1)&gt; 71.23 on dev: +8.77</h1>" in text

    assert not re.search(r'<script|<link|@import|url\(["\']?[^#]|(?:src|href)="[^#]', text)
    assert len(text) < 500_000
    pictures = re.findall(r"<figure><svg.*?</svg>", text, flags=re.DOTALL)
    # The score, three of the log, the plane, two of cosines, two of pairs, the boundaries, the learning rate.
    assert len(pictures) == 4 + 1 + 2 + 2 + 1 + 1
    assert len(list(page.parent.glob("*.png"))) == 2 * len(pictures)  # light and dark
    assert all("currentColor" in svg and "#010203" not in svg and "DejaVu" not in svg for svg in pictures)
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles.index("Scores") == 0 and titles.index("Learning rate") > titles.index("Decision boundaries")

    groups = re.split(r'<tr class="metric">.*?>', text)[1:]
    names = re.findall(r'<tr class="metric"><th[^>]*>(.*?) <span[^>]*>(.)', text)
    assert names == [("dev spearman", "↑"), ("geometry alignment", "↓")]
    cells = [[re.findall(r"<td>(.*?)</td>", row) for row in group.split("</tr>") if "<td>" in row] for group in groups]
    assert cells[0][:2] == [["50.00", "71.23", "+21.23"], ["NaN", "<strong>80.00</strong>", "NaN"]]
    assert cells[1][:2] == [["0.400", "<strong>0.300</strong>", "-0.100"], ["-", "-", "-"]]
    assert re.search(r'class=differs><th scope="row">angular_margin</th><td>0.0</td><td>10.0</td>', text)
    assert '<th scope="row">train_file</th><td colspan="2">a.txt, b.txt</td>' in text
    assert "weight_decay" not in text and ">output_dir<" not in text  # equal, and no setting to compare
    captions = html.unescape(" ".join(re.findall(r"<figcaption>(.*?)</figcaption>", text)))
    assert "arccse_10: 50 at step 0, 60 at step 4." in captions
    assert "<img src=x onerror=alert(1)> after training: 2 of 1,500 pairs of dev; Spearman of all 0.7123." in captions
    assert "arccse_10: from uniformity -1.000 and alignment 0.400 to -2.000 and 0.250." in captions


def test_the_result_has_an_interval_where_every_pair_was_kept(tmp_path):
    before, after = drawn_noise(300), drawn_noise(100)
    results = {"before_dev_spearman": spearman(before), "eval_dev_spearman": spearman(after)}
    samples = {"cosines_before": scored(before), "cosines_after": scored(after)}
    good = make_run(tmp_path / "good", all_results=results, **samples)
    sentence, reading = headline(score_table(read_runs([good])))
    low, high = map(float, re.fullmatch(r"good .* on dev: \+.*, 95 % \[(\S+), (\S+)\]", sentence).groups())
    # Not from the code: the paired bootstrap once more, with another generator.
    generator, differences = np.random.default_rng(9), []
    for _ in range(500):
        drawn = np.sort(generator.integers(0, 300, 300))
        pair = [scipy.stats.spearmanr(np.array(values)[drawn], drawn).statistic for values in (before, after)]
        differences.append(100 * (pair[1] - pair[0]))
    assert [low, high] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=2)
    assert "paired bootstrap over the sentence pairs" in reading

    same = make_run(tmp_path / "same", all_results=results, **samples)
    sentence, _ = headline(score_table(read_runs([good, same])))
    assert sentence.endswith("on dev: +0.00, 95 % [+0.00, +0.00]")
    for changed in (
        {"cosines_after": scored(after, num_pairs=1500)},  # a part of the pairs
        {"all_results": results | {"eval_dev_spearman": 0.99}},  # the scores of other weights
        {"cosines_after": scored(after[:200])},
    ):
        other = make_run(tmp_path / "other", **({"all_results": results} | samples | changed))
        sentence, reading = headline(score_table(read_runs([good, other])))
        assert "95 %" not in sentence and "no scores per item" in reading
        shutil.rmtree(other)


def test_the_verdict_is_the_result_where_every_run_has_one(tmp_path):
    verdict = {"difference": 0.05, "low": 0.04, "high": 0.06, "keeps_start": False}
    results = {"before_verdict_mrr_at_10": 0.55, "eval_verdict_mrr_at_10": 0.6, "eval_dev_spearman": 0.7}
    run = make_run(tmp_path / "run", all_results=results | {"verdict": verdict})
    sentence, _ = headline(score_table(read_runs([run])))
    assert sentence == "run 55.00 → 60.00 on held-out queries (MRR@10): +5.00, 95 % [+4.00, +6.00]"
    plain = make_run(tmp_path / "plain")
    assert headline(score_table(read_runs([run, plain])))[0].startswith("plain 71.23, run 70.00 on dev")


def test_many_runs_and_lower_is_better():
    def run(name, value):
        return Run(name, {}, {"eval_geometry_alignment": value})

    runs = [run("a", 0.4), run("b", 0.1), run("c", 0.3), run("d", 0.2), run("e", math.nan)]
    sentence, reading = headline(score_table(runs))
    assert sentence == "b 0.100, d 0.200, c 0.300 and 1 more on geometry (alignment): -0.100"
    assert reading.startswith("alignment; lower is better. Difference of b and d")


def test_a_run_that_goes_on_has_its_newest_score(tmp_path):
    run = make_run(tmp_path / "run", leave_out=("all_results", "run_status"), trainer_state={
        "global_step": 4, "log_history": history()[:7]})  # fmt: skip
    assert headline(score_table(read_runs([run])))[0].startswith("run 50.00 → 60.00 on dev")


def test_what_is_missing_is_said_in_one_place(tmp_path):
    state = {"global_step": 1, "log_history": [{"step": 1, "loss": 1.0, "arccon_loss": 0.5}]}
    bare = make_run(
        tmp_path / "bare", trainer_state=state,
        leave_out=("all_results", "run_settings", "cosines_before", "cosines_after"),
    )  # fmt: skip
    text = write_report([bare], tmp_path / "out").read_text(encoding="utf-8")
    assert re.findall(r"<h[12]>(.*?)</h", text) == [
        "No score was measured", "Over the steps", "Where it comes from", "What is not on this page",
    ]  # fmt: skip
    _, _, end = text.partition("What is not on this page")
    for said in (
        "all_results.json: no scores", "run_settings.json: no settings", "cosines_before.json: no cosines",
        "cosines_after.json: no cosines", "No run measured a score", "Not measured in bare",
        "Margin unknown of bare", "bare has no cosines of scored pairs", "bare has no cosines of training rows",
        "Share of violated triplets: not in the log of bare",
    ):  # fmt: skip
        assert said in end
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["arccon_loss-dark.png", "arccon_loss.png"]


def test_a_run_says_where_it_comes_from(tmp_path):
    mark = {
        "status": "done", "started": "2026-01-02T03:04:05+00:00", "finished": "2026-01-02T04:00:00+00:00",
        "versions": {"torch": "2.13"}, "hardware": "CPU (x86_64, 2 cores)", "command": "arccse train \\\n --a '<b>'",
    }  # fmt: skip
    run = make_run(tmp_path / "run", run_status=mark, trainer_state={"global_step": 0, "log_history": []},
                   leave_out=("cosines_after",), cosines_before={"num_rows": 20000})  # fmt: skip
    text = write_report([run], tmp_path / "out").read_text(encoding="utf-8")
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text, flags=re.DOTALL))
    assert facts == {
        "Model": "bert-base-uncased", "Data": "a.txt, b.txt; 20,000 rows", "Versions": "torch 2.13",
        "Date": "2026-01-02T03:04:05+00:00 to 2026-01-02T04:00:00+00:00", "Device": "CPU (x86_64, 2 cores)",
        "Command": "<pre>arccse train \\\n --a &#x27;&lt;b&gt;&#x27;</pre>",
    }  # fmt: skip


RECORDS = [
    "trainer_state", "all_results", "run_settings", "run_status", "cosines_before", "cosines_after",
]  # fmt: skip
WRONG_PLACES = [
    ("trainer_state", {"log_history": 3}, "log_history is not a list"),
    ("trainer_state", {"log_history": [3]}, r"log_history\[0\] is not an object"),
    ("trainer_state", {"log_history": [{"loss": 1.0}]}, r"log_history\[0\] lacks step"),
    ("trainer_state", {"log_history": [{"step": "1"}]}, r"log_history\[0\].step is not a number"),
    ("trainer_state", {"log_history": [{"step": 10**400}]}, r"log_history\[0\].step is not a number"),
    ("trainer_state", {"global_step": True}, "global_step is not a number"),
    ("all_results", {"train_runtime": [1]}, "train_runtime is not a number"),
    ("all_results", {"verdict": "better"}, "verdict is not an object"),
    ("run_settings", {"training": []}, "training is not an object"),
    ("run_settings", {"model": {"angular_margin": "ten"}}, "model.angular_margin is not a number"),
    ("run_status", {"versions": [], "status": "done"}, "versions is not an object"),
    ("run_status", {"command": {}, "status": "done"}, "command is not a text"),
    ("cosines_before", {"positives": {"a": 1}}, "positives is not a list"),
    ("cosines_before", {"closer": ["x"]}, r"closer\[0\] is not a number"),
    ("cosines_after", {"sts": {"task": "dev"}}, "sts lacks cosines"),
    ("cosines_after", {"sts": {"task": "d", "cosines": [1], "scores": [], "num_pairs": 1}}, "sts has 1 cosines and 0"),
]


@pytest.mark.parametrize("content", ["", '{"half": ', "[" * 100_000, "[]", "null", "3", '"x"', b"\xff\xfe"])
def test_a_record_that_is_no_json_object_is_named(tmp_path, content):
    run = make_run(tmp_path / "run")
    for name in RECORDS:
        path = run / f"{name}.json"
        whole = path.read_bytes()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError, match=f"{name}.json: (cannot be read as JSON|holds no JSON object)") as error:
            read_runs([run])
        assert len(str(error.value)) < 500
        path.write_bytes(whole)


@pytest.mark.parametrize(("name", "content", "said"), WRONG_PLACES)
def test_a_record_that_looks_otherwise_is_named_with_the_place(tmp_path, name, content, said):
    run = make_run(tmp_path / "run", **{name: content})
    with pytest.raises(UserError, match=rf"{name}.json: is damaged: {said}"):
        read_runs([run])


def test_a_stopped_run_is_read_from_its_last_checkpoint(tmp_path):
    for step in (90, 100):
        checkpoint = tmp_path / "run" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "arccse", "angular_margin": step / 10}))
    (run,) = read_runs([tmp_path / "run"])
    assert (run.state["global_step"], run.margin) == (100, 10.0)
    assert "The run has not ended; checkpoint-100" in run.missing[0]


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [make_run(tmp_path / path) for path in ("a/out", "b/out", "c")]
    assert [run.name for run in read_runs([*folders, folders[0]])] == ["a/out", "b/out", "c"]


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="gone: is no run: neither it nor a checkpoint-.* holds a trainer_state.json"):
        read_runs([tmp_path / "gone"])
    make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir .*file: cannot write there"):
        write_report([make_run(tmp_path / "bare", trainer_state={}, cosines_before={}, cosines_after={},
                               run_settings={})], tmp_path / "file")  # fmt: skip
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + [
        f"arccse_hf.report.{name}" for name in ("figures", "sections", "page", "scores")
    ]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'arccse-hf\[report\]'"):
        write_report([tmp_path / "bare"], tmp_path / "out")


def test_the_command_prints_where_the_page_is(tmp_path, capsys):
    state = {"global_step": 0, "log_history": []}
    run = make_run(tmp_path / "run", trainer_state=state, cosines_before={}, cosines_after={}, run_settings={})
    with pytest.raises(SystemExit) as done:
        main(["report", str(run), "--output_dir", str(tmp_path / "out")])
    assert done.value.code == 0 and "report.html" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()
