"""The HTML page: the runs, their scores, the sections with their pictures, the settings; with nothing else to load."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape

from ..evaluation import greater_is_better
from .figures import Figure, Style
from .runs import Run, scores
from .sections import Section

_NONE = "-"

# Shown for every run; any other setting in which the runs differ joins them.
_SETTINGS = (
    "model_name_or_path pooling projection temperature angular_margin triplet_margin triplet_weight small_span_ratio "
    "large_span_ratio triplet_min_tokens train_file dataset_name max_seq_length max_train_samples "
    "per_device_train_batch_size learning_rate num_train_epochs max_steps seed"
).split()
_NAMES_OF_THE_RUN = ("output_dir", "logging_dir", "run_name")


def settings_in_words(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Returns the settings that matter or differ, each with every run's value in words.

    Args:
        runs: Those of the page. A run without settings gets dashes; the result is empty where none has any.
    """
    by_run = [{name: value for group in run.settings.values() for name, value in group.items()} for run in runs]
    names = _names_in_use(by_run) + _other_names_that_differ([settings for settings in by_run if settings])
    return {name: [_in_words(settings[name]) if name in settings else _NONE for settings in by_run] for name in names}


def _names_in_use(by_run: Sequence[Mapping[str, object]]) -> list[str]:
    """Returns those of `_SETTINGS` that some run has a value of."""
    return [name for name in _SETTINGS if any(settings.get(name) not in (None, [], -1) for settings in by_run)]


def _other_names_that_differ(by_run: Sequence[Mapping[str, object]]) -> list[str]:
    others = dict.fromkeys(name for settings in by_run for name in settings)
    return [
        name
        for name in others
        if name not in (*_SETTINGS, *_NAMES_OF_THE_RUN)
        and any(settings.get(name) != by_run[0].get(name) for settings in by_run)
    ]


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _NONE
    return _NONE if value is None else value if isinstance(value, str) else json.dumps(value)


def build_page(runs: Sequence[Run], sections: Sequence[Section]) -> str:
    """Returns the page: runs, scores, every section, settings."""
    names = ", ".join(run.name for run in runs)
    body = ["<h1>Training report</h1>", _runs_list(runs), "<h2>Scores</h2>", _scores_table(runs)]
    for section in sections:
        body.append(f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.text)}</p>")
        body.append("".join(f'<p class="note">{escape(note)}</p>\n' for note in section.notes))
        if section.figures:
            body.append('<div class="grid">\n' + "\n".join(map(_figure, section.figures)) + "\n</div>")
    body += ["<h2>Settings</h2>", _settings_table(runs)]
    return _PAGE.format(title=f"Training report: {escape(names)}", style=_STYLE, body="\n".join(body))


def _runs_list(runs: Sequence[Run]) -> str:
    items = []
    for index, run in enumerate(runs):
        facts = [f"{run.state.get('global_step', 0):,} steps"]
        if run.kept_step != run.state.get("global_step", 0):
            facts.append(f"the weights of step {run.kept_step:,} kept")
        if "train_runtime" in run.results:
            facts.append(f"{run.results['train_runtime']:,.0f} s")
        notes = "".join(f'<br><span class="note">{escape(note)}</span>' for note in run.missing)
        items.append(f"<li>{_swatch(index)}<strong>{escape(run.name)}</strong>: {', '.join(facts)}{notes}</li>")
    return f'<ul class="runs">{"".join(items)}</ul>'


def _swatch(index: int) -> str:
    return f'<span class="swatch" style="background:{Style.of(index).colour}"></span>'


def _scores_table(runs: Sequence[Run]) -> str:
    table = scores(runs)
    if not table:
        return '<p class="note">No run has scores from before or after training.</p>'
    head = "".join(f'<th colspan="2">{_swatch(i)}{escape(run.name)}</th>' for i, run in enumerate(runs))
    rows = []
    for metric, values in table.items():
        after = [value for _, value in values if value is not None and value == value]
        best = (max if greater_is_better(metric) else min)(after) if len(runs) > 1 and after else None
        cells = "".join(_score(before) + _score(value, bold=value == best) for before, value in values)
        rows.append(f'<tr><th scope="row">{escape(metric)}</th>{cells}</tr>')
    when = "<th>before</th><th>after</th>" * len(runs)
    return _table(f"<tr><th></th>{head}</tr><tr><th></th>{when}</tr>", rows)


def _score(value: float | None, bold: bool = False) -> str:
    if value is None:
        return f"<td>{_NONE}</td>"
    return f"<td><strong>{value:.4f}</strong></td>" if bold else f"<td>{value:.4f}</td>"


def _settings_table(runs: Sequence[Run]) -> str:
    settings = settings_in_words(runs)
    if not settings:
        return '<p class="note">No run has a run_settings.json.</p>'
    head = "".join(f"<th>{_swatch(i)}{escape(run.name)}</th>" for i, run in enumerate(runs))
    rows = []
    for name, values in settings.items():
        differs = ' class="differs"' if len(set(values)) > 1 else ""
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(f'<tr{differs}><th scope="row">{escape(name)}</th>{cells}</tr>')
    more = "<p>Settings in which the runs differ are marked.</p>" if len(runs) > 1 else ""
    return more + _table(f"<tr><th></th>{head}</tr>", rows, kind="words")


def _table(head: str, rows: Sequence[str], kind: str = "numbers") -> str:
    body = "\n".join(rows)
    return f'<div class="wide"><table class="{kind}">\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _figure(figure: Figure) -> str:
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in figure.files.values())
    width, height = figure.size
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{width}" height="{height}" alt="{escape(figure.text)}"></picture>'
        f"<figcaption>{escape(figure.text)}</figcaption></figure>"
    )


_STYLE = """
:root { color-scheme: light dark; --page: #f6f8fa; --card: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0;
  --mark: #fff8c5 }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --card: #161b22; --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --mark: #3a3000 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin: 2rem 0 .3rem } p { margin: .3rem 0 .8rem; max-width: 46rem }
.note { color: var(--soft); font-size: .9rem } .runs { list-style: none; padding: 0 }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem }
figure { margin: 0; max-width: 34rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  overflow: hidden }
img { display: block; width: 100%; height: auto }
figcaption { padding: .2rem .8rem .7rem; color: var(--soft); font-size: .85rem }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
tbody tr:last-child > * { border-bottom: 0 }
thead th { font-weight: 600 } th[scope=row] { text-align: left; font-weight: 400 }
.words th, .words td { text-align: left; white-space: normal } .words td { min-width: 7rem; overflow-wrap: anywhere }
.differs > * { background: var(--mark) }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
