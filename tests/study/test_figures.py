"""A study's pictures: which numbers stand in them."""

import pytest
from matplotlib.figure import Figure

from arccse_hf.study import figures
from arccse_hf.study.plan import read_study
from arccse_hf.study.summary import AVERAGE, Row, Statistic

VARIANTS = {"SimCSE": {"angular_margin": 0}, "ArcCon": {"angular_margin": 10}}


def test_a_grid_of_two_fields_becomes_a_line_for_each_value_of_the_second(study_file):
    path = study_file(grid={"angular_margin": [0, 10, 20], "temperature": [0.05, 0.1]})
    study = read_study(path)
    means = {name: index / 100 for index, name in enumerate(study.variants)}
    axes = Figure().add_subplot()
    figures._scores(study, {name: Statistic.of({1: mean}) for name, mean in means.items()}, "")(axes)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "10", "20"]
    lines, labels = axes.get_legend_handles_labels()
    assert labels == ["temperature=0.05", "temperature=0.1"]
    assert [line[0].get_ydata().tolist() for line in lines] == [[0, 2, 4], [1, 3, 5]]


def test_pictures_compare_the_seeds_that_all_variants_have_and_say_which(study_file, monkeypatch):
    study = read_study(study_file(variants=VARIANTS))
    monkeypatch.setattr(figures, "render", lambda name, text, draw: (name, text, draw))
    read = []
    monkeypatch.setattr(figures, "_runs_of", lambda study, row, seeds: read.append(seeds) or [])
    monkeypatch.setattr(figures, "_mean_path", lambda paths: ([], []))

    def drawn(scores):
        rows = [Row(name, list(values), {AVERAGE: Statistic.of(values)}) for name, values in scores.items()]
        return figures.draw(study, rows)

    ((_, text, draw),) = drawn({"SimCSE": {1: 0.1, 2: 0.3, 3: 0.8}, "ArcCon": {2: 0.4, 3: 0.6, 4: 0.9}})
    draw(axes := Figure().add_subplot())
    assert text.endswith(which := "(seeds 2, 3 alone)") and axes.get_title().endswith(which)
    (means,) = axes.containers
    assert means[0].get_ydata().tolist() == pytest.approx([55, 50])
    assert [sorted(points.get_offsets()[:, 1]) for points in axes.collections[-2:]] == [[30, 80], [40, 60]]
    assert read == [[2, 3]] * 2

    ((_, text, _),) = drawn({name: {1: 0.1} for name in VARIANTS})
    assert text.endswith("every seed a point")
    assert drawn({"SimCSE": {1: 0.1}, "ArcCon": {2: 0.2}}) == []
