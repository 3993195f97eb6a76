"""The HTML page: the runs, their scores, the sections with their pictures, the settings; with nothing else to load."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from ..evaluation.suite import greater_is_better
from .figures import Figure, Style
from .records import is_number
from .runs import Run
from .scores import Score, best_of, headline, in_words, metric_label, same_test, score_table
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
    """Returns the page: the result, every run's scores, the sections that have pictures, settings and provenance."""
    table = score_table(runs)
    sentence, reading = headline(table)
    body = [f"<h1>{escape(sentence)}</h1>", f"<p>{escape(reading)}</p>", _runs_list(runs)]
    if table:
        body += ["<h2>Scores</h2>", _scores_table(runs, table)]
    for section in sections:
        if section.figures:
            body.append(f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.text)}</p>")
            body.append('<div class="grid">\n' + "\n".join(map(_figure, section.figures)) + "\n</div>")
    if settings := settings_in_words(runs):
        body += ["<h2>Settings</h2>", _settings_table(runs, settings)]
    body += ["<h2>Where it comes from</h2>", *(_provenance(index, run) for index, run in enumerate(runs))]
    notes = [f"{run.name}: {note}" for run in runs for note in run.missing]
    notes += [note for section in sections for note in section.notes]
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        body += ["<h2>What is not on this page</h2>", f'<ul class="note">{items}</ul>']
    return _PAGE.format(title=escape(sentence), style=_STYLE, body="\n".join(body))


def _runs_list(runs: Sequence[Run]) -> str:
    items = []
    for index, run in enumerate(runs):
        facts = [f"{run.state.get('global_step', 0):,} steps"]
        if run.exported:
            facts.append(f"exported is {run.exported}")
        elif run.kept_step != run.state.get("global_step", 0):
            facts.append(f"the weights of step {run.kept_step:,} kept")
        if is_number(run.results.get("train_runtime")) and not run.mark.get("resumed"):
            facts.append(f"{run.results['train_runtime']:,.0f} s")
        if not run.has_ended:
            facts.append("it has not ended")
        items.append(f"<li>{_named(index, run)}: {', '.join(facts)}</li>")
    return f'<ul class="runs">{"".join(items)}</ul>'


def _named(index: int, run: Run) -> str:
    swatch = f'<span class="swatch" style="background:{Style.of(index).colour}"></span>'
    return f"{swatch}<strong>{escape(run.name)}</strong>"


def _scores_table(runs: Sequence[Run], table: Mapping[str, Sequence[Score]]) -> str:
    """One row per metric and run, so that a narrow screen shows them all."""
    rows = []
    for name, scores in table.items():
        arrow, better = ("↑", "higher") if greater_is_better(name) else ("↓", "lower")
        title = f'{escape(metric_label(name))} <span title="{better} is better">{arrow}</span>'
        rows.append(f'<tr class="metric"><th scope="rowgroup" colspan="4">{title}</th></tr>')
        ranked = best_of(name, scores)
        comparable = same_test(name, scores)
        for index, score in enumerate(scores):
            is_best = len(runs) > 1 and bool(ranked) and score.after == ranked[0].after and comparable
            change = None if score.before is None or score.after is None else score.after - score.before
            cells = [in_words(score.before, name), in_words(score.after, name), in_words(change, name, signed=True)]
            if is_best:
                cells[1] = f"<strong>{cells[1]}</strong>"
            values = "".join(f"<td>{cell}</td>" for cell in cells)
            rows.append(f'<tr><th scope="row">{_named(index, score.run)}</th>{values}</tr>')
    note = "<p>Bold: the best of what was trained.</p>" if len(runs) > 1 else ""
    return note + _table("<tr><th></th><th>before</th><th>after</th><th>change</th></tr>", rows)


def _provenance(index: int, run: Run) -> str:
    """What a run was made from, with and on, as far as it has left that."""
    settings = {name: value for group in run.settings.values() for name, value in group.items()}
    rows = run.cosine_samples.get("before", {}).get("num_rows")
    data = _in_words(settings.get("dataset_name") or settings.get("train_file"))
    dates = [str(run.mark[name]) for name in ("started", "finished") if name in run.mark]
    versions = ", ".join(f"{package} {version}" for package, version in run.mark.get("versions", {}).items())
    facts = {
        "Model": _in_words(settings.get("model_name_or_path")),
        "Data": data if data == _NONE or not is_number(rows) else f"{data}; {rows:,} rows",
        "Date": " to ".join(dates),
        "Device": run.mark.get("hardware", ""),
        "Versions": versions,
    }
    items = [f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items() if fact not in ("", _NONE)]
    if "command" in run.mark:
        items.append(f"<dt>Command</dt><dd><pre>{escape(run.mark['command'])}</pre></dd>")
    return f"<p>{_named(index, run)}</p><dl>{''.join(items)}</dl>" if items else ""


def _settings_table(runs: Sequence[Run], settings: Mapping[str, Sequence[str]]) -> str:
    rows = []
    for name, values in settings.items():
        differs = len(set(values)) > 1
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        if not differs:
            cells = f'<td colspan="{len(values)}">{escape(values[0])}</td>'
        rows.append(f'<tr{" class=differs" * differs}><th scope="row">{escape(name)}</th>{cells}</tr>')
    note = "<p>Marked: what the runs differ in. One value: it is that of all runs.</p>" if len(runs) > 1 else ""
    head = "".join(f"<th>{_named(index, run)}</th>" for index, run in enumerate(runs))
    return note + _table(f"<tr><th></th>{head}</tr>", rows, kind="words")


def _table(head: str, rows: Sequence[str], kind: str = "numbers") -> str:
    body = "\n".join(rows)
    return f'<div class="wide"><table class="{kind}">\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _figure(figure: Figure) -> str:
    return f"<figure>{figure.svg}<figcaption>{escape(figure.text)}</figcaption></figure>"


_STYLE = """
:root { color-scheme: light dark; --page: #f6f8fa; --card: #fff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0;
  --mark: #fff8c5 }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --card: #161b22; --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --mark: #3a3000 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 } h2 { font-size: 1.2rem; margin: 2rem 0 .3rem }
p { margin: .3rem 0 .8rem; max-width: 46rem }
.note { color: var(--soft); font-size: .9rem } ul.runs { list-style: none; padding: 0 }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem }
figure { margin: 0; max-width: 34rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  overflow: hidden }
figure svg { display: block; width: 100%; height: auto }
figcaption { padding: .2rem .8rem .7rem; color: var(--soft); font-size: .85rem }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  width: fit-content; max-width: 100% }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
td { white-space: nowrap } tbody tr:last-child > * { border-bottom: 0 }
thead th { font-weight: 600; white-space: nowrap } th[scope] { text-align: left; font-weight: 400 }
.metric th { font-weight: 600; background: var(--page) } th[scope=row] strong { font-weight: 400 }
.words th, .words td { text-align: left; white-space: normal } .words td { min-width: 7rem; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; margin: 0 0 1.5rem;
  font-size: .9rem } dt { color: var(--soft) } dd { margin: 0 } pre { margin: 0; white-space: pre-wrap }
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
