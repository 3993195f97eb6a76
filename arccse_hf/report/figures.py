"""The pictures of the report: each drawn for a light and a dark page, with one colour per run throughout."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, MultipleLocator

from .runs import Series

# Okabe and Ito's palette, which colour-blind readers tell apart; the markers say the same again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES = ("-", "--", ":", "-.")
_NEUTRAL = "#8b949e"

_WIDTH, _HEIGHT, _LEGEND_ROW, _DPI = 4.6, 3.1, 0.22, 200
_BINS = 40


@dataclass(frozen=True)
class Theme:
    """Colours of the paper and the ink."""

    suffix: str
    background: str
    ink: str
    grid: str


THEMES = (Theme("", "#ffffff", "#1f2328", "#d8dee4"), Theme("-dark", "#161b22", "#e6edf3", "#30363d"))
# Colours that nothing else has, in whose place the page's own are written.
_IN_PAGE = Theme("", "none", "#010203", "#040506")


@dataclass(frozen=True)
class Style:
    """How a run looks in every picture."""

    colour: str
    marker: str
    line: str

    @classmethod
    def of(cls, index: int) -> Style:
        """The style of the run at `index`; colours repeat with another line style after six."""
        rounds, position = divmod(index, len(_COLOURS))
        return cls(_COLOURS[position], _MARKERS[position], _LINES[rounds % len(_LINES)])


@dataclass(frozen=True)
class Figure:
    """A finished picture.

    Args:
        name: File name without ending.
        text: What it shows, for readers who do not see it.
        files: PNG by file name, the light one first.
        svg: The same for within a page, which gives it the colours of its ink (`currentColor`) and lines (`--line`).
    """

    name: str
    text: str
    files: dict[str, bytes]
    svg: str


def render(name: str, text: str, draw: Callable[[Axes], None]) -> Figure:
    """Draws on empty axes, once per theme and once for within a page; what `draw` labels goes into a legend below."""
    files = {f"{name}{theme.suffix}.png": _draw(draw, theme, "png") for theme in THEMES}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        svg = _draw(draw, _IN_PAGE, "svg").decode()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = f'<svg {box[0]} role="img" aria-label="{escape(text)}">' + svg[svg.index(">") + 1 :]
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    for colour, role in ((_IN_PAGE.ink, "currentColor"), (_IN_PAGE.grid, "var(--line)")):
        svg = svg.replace(colour, role)
    return Figure(name, text, files, svg)


def _draw(draw: Callable[[Axes], None], theme: Theme, kind: str) -> bytes:
    with matplotlib.rc_context(_settings(theme)):
        canvas = Canvas(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = canvas.add_subplot()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        if labels:
            columns = 1 if max(map(len, labels)) > 24 else 2
            rows = -(-len(labels) // columns)
            canvas.set_figheight(_HEIGHT + _LEGEND_ROW * rows)
            canvas.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        file = io.BytesIO()
        canvas.savefig(file, format=kind, dpi=_DPI, metadata={"Software": None} if kind == "png" else {"Date": None})
        return file.getvalue()


def _settings(theme: Theme) -> dict[str, object]:
    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    return {
        "figure.constrained_layout.h_pad": 0.07,
        "figure.constrained_layout.w_pad": 0.1,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "axes.facecolor": theme.background,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "font.size": 10,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "text.parse_math": False,  # a run may be called a_b or $x
    } | dict.fromkeys(inked, theme.ink)


def curves(title: str, series: Sequence[tuple[str, Style, Series]], *, percent: bool = False) -> Callable[[Axes], None]:
    """A value over steps, one line per run."""

    def draw(axes: Axes) -> None:
        for position, (name, style, (steps, values)) in enumerate(series):
            marker = {"marker": style.marker, "markersize": 4.5} if len(steps) <= 30 else {}
            # Learning rates are often the same: hidden lines are drawn wider, so that they show at the edges.
            hidden = sum(other == (steps, values) for _, _, other in series[position + 1 :])
            width = 1.8 + 2.2 * hidden
            axes.plot(steps, values, color=style.colour, linestyle=style.line, linewidth=width, label=name, **marker)
        axes.set(title=title, xlabel="step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if percent:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        elif max((abs(value) for _, _, (_, values) in series for value in values), default=1) < 1e-2:
            axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))

    return draw


def plane(
    series: Sequence[tuple[str, Style, Series]], title: str = "Alignment and uniformity"
) -> Callable[[Axes], None]:
    """Alignment against uniformity: one path per run, from a hollow point, with an arrow to the filled last one."""

    def draw(axes: Axes) -> None:
        for name, style, (uniformity, alignment) in series:
            points = list(zip(uniformity, alignment, strict=True))
            look = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
            axes.plot(uniformity, alignment, color=style.colour, linestyle=style.line, linewidth=1, alpha=0.55)
            axes.plot(*zip(*points[1:-1], strict=True) if points[2:] else ([], []), **look, markersize=3, alpha=0.55)
            if points[0] != points[-1]:
                arrow = {
                    "arrowstyle": "-|>",
                    "color": style.colour,
                    "lw": 2,
                    "shrinkA": 5,
                    "shrinkB": 4,
                    "mutation_scale": 16,
                }
                axes.annotate("", xy=points[-1], xytext=points[0], arrowprops=arrow)
                axes.plot(*points[0], **look, markersize=8, markerfacecolor="none", markeredgewidth=1.6)
            axes.plot(*points[-1], **look, markersize=6, label=name)
        axes.margins(0.15)
        axes.set(title=title, xlabel="uniformity (lower is better)")
        axes.set_ylabel("alignment (lower is better)")
        axes.locator_params(nbins=5)

    return draw


def boundaries(margins: Sequence[tuple[str, Style, float]]) -> Callable[[Axes], None]:
    """Decision boundaries of NT-Xent and, for each run's margin in degrees, of ArcCon, with the margin shaded."""

    def draw(axes: Axes) -> None:
        ink = matplotlib.rcParams["text.color"]
        # Dashed and on top: a run without margin lies on the same line.
        dashes = {"linestyle": (0, (4, 3)), "linewidth": 1.3, "zorder": 3}
        axes.plot(*decision_boundary(0), color=ink, label="NT-Xent: θi = θj", **dashes)
        for position, (name, style, margin) in enumerate(margins):
            equal = [index for index, (_, _, other) in enumerate(margins) if other == margin]
            # Runs of one margin share a line: each draws its dashes into the gaps of the others.
            dash, turn = 7, equal.index(position)
            line = "-" if len(equal) == 1 else (-dash * turn, (dash, dash * (len(equal) - 1)))
            label = f"{name}: θi + {margin:g}° = θj" if margin else f"{name}: no margin"
            axes.plot(*decision_boundary(margin), color=style.colour, linestyle=line, linewidth=2.4)
            axes.plot([], [], color=style.colour, linewidth=2.4, label=label)  # the legend's, without gaps
            if turn == 0 and margin:
                low, high = decision_boundary(0), decision_boundary(margin)
                axes.fill(low[0] + high[0][::-1], low[1] + high[1][::-1], color=style.colour, alpha=0.15, linewidth=0)
        axes.set(title="Decision boundaries", xlim=(0, 90), ylim=(0, 90), aspect="equal")
        axes.set_xlabel("θi: to the positive (degrees)")
        axes.set_ylabel("θj: to a negative (degrees)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(15))

    return draw


def scatter(title: str, points: Series, style: Style, limits: tuple[float, float]) -> Callable[[Axes], None]:
    """Predicted cosine against gold score; `limits` of the cosine, so that two pictures compare."""

    def draw(axes: Axes) -> None:
        axes.plot(*points, color=style.colour, marker=style.marker, linestyle="none", markersize=3.6, alpha=0.55, mew=0)
        axes.set(title=title, xlabel="gold score", ylabel="predicted cosine", ylim=limits)

    return draw


def histograms(
    title: str, groups: dict[str, list[float]], style: Style, limits: tuple[float, float]
) -> Callable[[Axes], None]:
    """Densities of the cosines of `positives`, `negatives`, `closer` and `farther`; empty ones are left out."""

    def draw(axes: Axes) -> None:
        ink = matplotlib.rcParams["text.color"]
        looks = {
            "negatives": {"color": _NEUTRAL, "alpha": 0.55, "label": "negatives"},
            "positives": {"color": style.colour, "alpha": 0.6, "label": "positives"},
            "closer": {"color": ink, "histtype": "step", "linewidth": 1.5, "label": "small span masked"},
            "farther": {
                "color": ink, "histtype": "step", "linewidth": 1.5, "linestyle": (0, (3, 2)),
                "label": "large span masked",
            },
        }  # fmt: skip
        for kind, look in looks.items():
            if groups.get(kind):
                axes.hist(groups[kind], bins=_BINS, range=limits, density=True, **look)
        axes.set(title=title, xlabel="cosine", ylabel="density", xlim=limits)

    return draw


def limits_of(values: Sequence[float]) -> tuple[float, float]:
    """The range of `values` with a little room, inside what a cosine can be."""
    low, high = min(values), max(values)
    room = max(0.03 * (high - low), 1e-3)
    return max(low - room, -1 - room), min(high + room, 1 + room)


def decision_boundary(margin: float) -> Series:
    """Ends of the line `theta_i + margin = theta_j` in the square from 0 to 90 degrees."""
    return [0.0, 90.0 - margin], [margin, 90.0]
