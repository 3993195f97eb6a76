"""What the page may say of scores: of which weights, of which step, and on which test."""

import re

from arccse_hf.report.figures import Style
from arccse_hf.report.page import _runs_list, _scores_table
from arccse_hf.report.runs import Run
from arccse_hf.report.scores import headline, score_table
from arccse_hf.report.sections import _sts

STS = {"task": "dev", "cosines": [0.1, 0.5, 0.9], "scores": [1.0, 2.0, 3.0], "num_pairs": 3}


def judged(name, start, after, test, **verdict):
    results = {"before_verdict_mrr_at_10": start, "eval_verdict_mrr_at_10": after}
    return Run(
        name, {"global_step": 4}, results | {"verdict": {"keeps_start": False, "share": 1, "test": test} | verdict}
    )


def test_what_was_measured_within_training_is_no_score_before_it():
    lines = [{"step": step, "eval_dev_spearman": value} for step, value in ((125, 0.8), (250, 0.82))]
    assert headline(score_table([Run("late", {"log_history": lines})]))[0] == "late 82.00 on dev"
    lines.insert(0, {"step": 0, "eval_dev_spearman": 0.7})
    assert headline(score_table([Run("whole", {"log_history": lines})]))[0].startswith("whole 70.00 → 82.00 on dev")


def test_verdicts_are_ranked_where_they_are_on_the_same_queries():
    same = [judged("a", 0.5, 0.6, "t"), judged("b", 0.5, 0.7, "t")]
    assert headline(score_table(same))[0].startswith("b 70.00, a 60.00 on held-out queries (MRR@10): +10.00")
    for tests in (("t", "u"), (None, None)):
        others = [judged(name, 0.5, after, test) for name, after, test in zip("ab", (0.6, 0.7), tests, strict=True)]
        sentence, reading = headline(score_table(others))
        assert sentence == "a 50.00 → 60.00; b 50.00 → 70.00 on held-out queries (MRR@10)"
        assert "Each run was judged on queries of its own" in reading


def test_levels_are_compared_where_the_data_of_a_task_is_the_same():
    def run(name, after, english):
        results = {"before_dev_spearman": 0.5, "eval_dev_spearman": after, "eval_dev_b_spearman": after}
        return Run(name, {"global_step": 4}, results | {"measured_on": {"dev": english, "dev_b": "b"}})

    table = score_table([run("a", 0.6, "en"), run("b", 0.7, "de")])
    sentence, reading = headline(table)
    assert sentence == "a 50.00 → 60.00; b 50.00 → 70.00 on dev" and "measured on data of its own" in reading
    assert best_values(table) == {"dev_spearman": [], "dev_b_spearman": ["70.00"]}
    late = [run("a", 0.6, "en"), run("b", 0.7, "de")]
    for one in late:
        del one.results["before_dev_spearman"]
    sentence, reading = headline(score_table(late))
    assert sentence == "a 60.00; b 70.00 on dev" and "data of its own, so they cannot be compared." in reading
    same = score_table([run("a", 0.6, "en"), run("b", 0.7, "en")])
    assert headline(same)[0].startswith("b 70.00, a 60.00 on dev: +10.00")
    assert best_values(same) == {"dev_spearman": ["70.00"], "dev_b_spearman": ["70.00"]}


def test_no_value_of_a_verdict_is_best_where_queries_differ():
    runs = [judged(name, 0.5, after, test) for name, after, test in (("a", 0.6, "t"), ("b", 0.7, "u"))]
    for run, value in zip(runs, (0.79, 0.36), strict=True):
        run.results["eval_verdict_trained_mrr_at_10"] = value
    assert set(map(tuple, best_values(score_table(runs)).values())) == {()}


def best_values(table):
    """The values that the page's table has in bold, by metric."""
    found = {}
    for name, scores in table.items():
        page = _scores_table([score.run for score in scores], {name: scores})
        found[name] = re.findall(r"<td><strong>(.*?)</strong></td>", page)
    return found


def test_cosines_of_the_trained_weights_do_not_stand_for_what_was_exported():
    for verdict, said in (
        ({}, None),
        ({"keeps_start": True}, "exported is the start encoder"),
        ({"share": 0.25}, "exported is a mixture with 0.25 of the trained weights"),
    ):
        run = judged("run", 0.5, 0.6, "t", **verdict)
        run.results |= {"before_dev_spearman": 0.4, "eval_dev_spearman": 0.9}
        run.cosine_samples = {"before": {"sts": STS}, "after": {"sts": STS}}
        before, after = (figure.text for figure in _sts([(run, Style.of(0))]).figures)
        assert "Spearman of all 0.4000" in before and ("Spearman of all 0.9000" in after) == (said is None)
        assert (said or "4 steps") in re.sub("<.*?>", "", _runs_list([run]))
