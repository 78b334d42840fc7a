"""Every figure of a fit as bytes, drawn once: PNG for the report, PNG and SVG for the files of `--out`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from finetti.errors import FinettiError
from finetti.show import honesty
from finetti.show.estimates import coefficients
from finetti.show.nodes import hyperparameters
from finetti.show.reading import is_meta, pooling_of
from finetti.show.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "Plan", "drawn_of", "pictures", "plans"]

MOST = 12  # shrinkage figures per fit; a model with more varying coefficients is looked at one by one


@dataclass(frozen=True)
class Plan:
    """One figure to draw: which function, of what, and what it shows.

    Attributes
    ----------
    figure : str
        Name of the function, such as "shrinkage_figure".
    name : str
        Stem of its file, before it is made fit for a file system.
    heading, words : str
        A heading, and a sentence on how to read it.
    group, coefficient : str
        What it is about; "" where it is about the whole fit.
    alone : bool
        Whether it is a part of the page of its own, and not beside the table of a group or of the studies.
    module : str
        Where the function is, in `finetti.show`.
    subject : optional
        A result that is drawn; default: the fit.
    section : str
        The section on honest uncertainty that it belongs to, or "".
    """

    figure: str
    name: str
    heading: str
    words: str
    group: str = ""
    coefficient: str = ""
    alone: bool = False
    module: str = "plots"
    subject: Any = field(default=None, repr=False, compare=False)
    section: str = ""

    def draw(self, fit: Any) -> Figure | None:
        """Return the figure, or None where this fit has nothing of the kind to show."""
        function = getattr(import_module(f"finetti.show.{self.module}"), self.figure, None)
        if function is None:
            return None
        try:
            if self.subject is not None:
                return function(self.subject)
            return function(fit, self.group, self.coefficient) if self.group else function(fit)
        except FinettiError:  # such as the spread of a model without groups and with known errors
            return None


@dataclass(frozen=True)
class Picture:
    """One figure, drawn once.

    Attributes
    ----------
    plan : Plan
    title : str
        Its message in words, for those who cannot see it.
    png : bytes
    """

    plan: Plan
    title: str
    png: bytes
    _figure: Figure = field(repr=False, compare=False)

    @property
    def group(self) -> str:
        """The grouping factor that it is about, or ""."""
        return self.plan.group

    @property
    def coefficient(self) -> str:
        """The coefficient that it is about, or ""."""
        return self.plan.coefficient

    def svg(self) -> bytes:
        """Return the same figure as vector graphics."""
        return _encode(self._figure, "svg")


def plans(fit: Any) -> list[Plan]:
    """Return the figures that tell this fit's story, in reading order.

    Shrinkage shows what a forest plot would, and the raw estimates beside it; a meta-analysis is read as a forest.
    """
    made = []
    if is_meta(fit):
        made.append(
            Plan("forest_figure", "forest", "Every study",
                 "Each study as it was reported and as it is estimated in the light of the others, with intervals; "
                 "below them the overall effect and the range in which a new study's effect is expected.")
        )  # fmt: skip
        made.append(
            Plan("funnel_figure", "funnel", "Small studies against large ones",
                 "Without selective reporting, points lie evenly on both sides of the line; an empty lower corner is a "
                 "reason to ask which small studies were never published.")
        )  # fmt: skip
    else:
        made += _shrinkage(fit)
    made += _honest(fit)
    made += [
        Plan("hyper_figure", "hyper", "Spread: prior and posterior",
             "Posterior (filled) against prior (line) of each standard deviation and correlation. Where the two agree, "
             "the data had little to say, and the prior decides.", alone=True),
        Plan("predictive_figure", "predictive", "Does the model fit?",
             "If the model describes the data, the observed responses look like one of the simulated sets. Where they "
             "stand apart, the model misses something: skewness, outliers, a limit.", alone=True),
    ]  # fmt: skip
    if _free(fit) > 1:
        made.append(
            Plan("pairs_figure", "pairs", "Hyperparameters in pairs",
                 "Each dot is a set of hyperparameters, larger and darker where it counts more. A ridge means that the "
                 "data determine a combination better than either one.", alone=True)
        )  # fmt: skip
    return made


def _honest(fit: Any) -> list[Plan]:
    """The figures of honest uncertainty: of each term, its most important coefficient."""
    several = len(fit.group_names) > 1
    made = []
    for section in honesty.sections(fit):
        for part in section.parts:
            if (drawing := part.drawing) is None:
                continue
            name = f"{section.anchor}-{part.group}" if several and part.group else section.anchor
            made.append(
                Plan(drawing.function, name, section.heading, drawing.words, part.group, drawing.coefficient,
                     module=drawing.module, subject=drawing.subject, section=section.anchor)
            )  # fmt: skip
    return made


def _free(fit: Any) -> int:
    """How many hyperparameters were integrated over."""
    try:
        return sum(not h.held for h in hyperparameters(fit, smooth=False))
    except FinettiError:
        return 0


def _shrinkage(fit: Any) -> list[Plan]:
    varying = [(str(group), c) for group in fit.group_names for c in coefficients(fit, group)]
    made = []
    for group, coefficient in varying[:MOST]:
        name = f"shrinkage-{group}-{coefficient}" if len(varying) > 1 else "shrinkage"
        if pooling_of(fit, group) == "none":
            words = "Each estimate rests on the group's own data alone, with its 90 % interval."
        else:
            words = (
                "Each line leads from what a group's own data say (hollow) to the estimate in the light of all groups "
                "(filled, with its 90 % interval). The less a group knows, the further it is drawn to the dashed line."
            )
        heading = group if coefficient == "Intercept" else f"{group}: {coefficient}"
        made.append(Plan("shrinkage_figure", name, heading, words, group, coefficient))
    return made


def pictures(fit: Any) -> tuple[Picture, ...]:
    """Draw every figure of `plans` that this fit has."""
    return drawn_of(plans(fit), fit)


def drawn_of(planned: Sequence[Plan], fit: Any) -> tuple[Picture, ...]:
    """Draw these figures, without those of which this fit has nothing to show."""
    drawn = []
    for plan in planned:
        with _boxes_for_lacking_letters():
            figure = plan.draw(fit)
        if figure is None:
            continue
        png = _encode(figure, "png")
        figure.set_layout_engine("none")  # laid out once; the SVG then agrees with the PNG and costs half
        drawn.append(Picture(plan, _message(figure) or plan.heading, png, figure))
    return tuple(drawn)


def _message(figure: Figure) -> str:
    titles = [figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes[:1])]
    return next((" ".join(title.split()) for title in titles if title.strip()), "")


def _encode(figure: Figure, kind: str) -> bytes:
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # Without a date and with a fixed salt, the same fit gives the same file.
    with style(), _boxes_for_lacking_letters():
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        else:  # what `savefig` does, but drawn once and not twice
            figure.set_dpi(rcParams["savefig.dpi"])
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "finetti"})
    return buffer.getvalue()


@contextmanager
def _boxes_for_lacking_letters() -> Iterator[None]:
    """A level named in a script that the font lacks is drawn as boxes; that is no news for a terminal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
