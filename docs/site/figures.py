"""Draws the pictures of "How ArcCSE works" with the package's own functions: `python docs/site/figures.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes

from arccse_hf.data.span_masking import nested_spans
from arccse_hf.model.losses import arccon_loss
from arccse_hf.report.figures import Style, render

FOLDER = Path(__file__).parents[1] / "figures"
NEGATIVE, TEMPERATURE = 60.0, 0.05  # degrees to the negative
SENTENCE = "the printer on the second floor jams whenever somebody sends it many pages of thick paper"


def losses_by_angle(margin: float) -> tuple[list[float], list[float]]:
    """Returns angles to the positive in degrees, and ArcCon of each, with one negative at `NEGATIVE` degrees."""
    angles = [float(angle) for angle in range(91)]
    losses = [
        arccon_loss(_at(0), _at(angle), negatives=_at(-NEGATIVE), angular_margin=margin, temperature=TEMPERATURE).item()
        for angle in angles
    ]
    return angles, losses


def draw_losses(margins: Sequence[float]) -> Callable[[Axes], None]:
    """Returns what draws the loss over the angle, a line per margin."""

    def draw(axes: Axes) -> None:
        for index, margin in enumerate(margins):
            style = Style.of(index)
            label = f"margin {margin:g}°" if margin else "no margin (NT-Xent)"
            axes.plot(*losses_by_angle(margin), color=style.colour, label=label, linewidth=2)
        axes.axvline(NEGATIVE, color=matplotlib.rcParams["text.color"], linestyle=":", linewidth=1)
        axes.set(title="What a positive pair still costs", xlabel="angle to the positive (degrees)", ylabel="ArcCon")

    return draw


def draw_spans(axes: Axes) -> None:
    """Draws a sentence as a row of boxes, and its two masked versions below it."""
    words = SENTENCE.split()
    spans = nested_spans(len(words), generator=torch.Generator().manual_seed(4))
    ink, colour = matplotlib.rcParams["text.color"], Style.of(1).colour
    for row, (name, span) in enumerate((("s", range(0)), ("s'", spans.small), ("s''", spans.large))):
        axes.text(-0.6, -row, name, ha="right", va="center", fontsize=11)
        for position in range(len(words)):
            masked = position in span
            axes.barh(-row, 0.9, left=position, height=0.6, color=colour if masked else "none", edgecolor=ink, lw=0.6)
    for position, word in enumerate(words):
        axes.text(position + 0.45, 0.45, word, rotation=60, ha="left", va="bottom", fontsize=8)
    axes.set(xlim=(-2, len(words) + 1), ylim=(-2.5, 2.4))
    axes.axis("off")


def _at(degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor([degrees], dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def main() -> None:
    """Writes each picture for the light and for the dark palette."""
    FOLDER.mkdir(exist_ok=True)
    for figure in (render("margin", "", draw_losses((0, 10, 20))), render("spans", "", draw_spans)):
        for name, content in figure.files.items():
            (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    main()
