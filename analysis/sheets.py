"""Tables as readers see them: Markdown, LaTeX, HTML and CSV.

Markdown, LaTeX and HTML round the numbers and say in notes how they were made and what may be concluded; CSV keeps them
whole.
"""

import re
import textwrap
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment

from analysis.notes import inputs
from analysis.races import Race

COLUMNS = 130  # of a terminal that shows a table of a few methods, and its notes, unbroken


@dataclass(frozen=True, eq=False)
class Sheet:
    """What is shown of one race.

    `frames` are tables of text (in LaTeX the rows of one target stand together), `notes` sentences below them; `rows`
    are all numbers for the CSV, with a column `method`.
    """

    race: Race
    heading: str
    frames: tuple[pd.DataFrame, ...]
    notes: tuple[str, ...]
    rows: pd.DataFrame
    others: tuple[Race, ...] = ()  # more races that it shows

    @property
    def inputs(self):
        """The sentence on its input files, one for each race."""
        return " ".join(map(inputs, (self.race, *self.others)))


def markdown(sheets, command):
    """The sheets with their notes, aligned for a terminal; `command` is what makes them again."""
    return "\n".join([*map(_markdown, sheets), f"Made by `{command}`.\n"])


def _markdown(sheet):
    items = "\n".join(_item(note) for note in (*sheet.notes, sheet.inputs))
    return "\n\n".join([f"## {sheet.heading}", *map(_grid, sheet.frames), items]) + "\n"


def _grid(frame):
    """A frame of text as an aligned Markdown table."""
    columns = [[name, *(text.replace("|", r"\|") for text in frame[name])] for name in frame]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in zip(*columns, strict=True)
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _item(text):
    """A note as a list item, broken at the width of a terminal but never inside an interval."""
    text = re.sub(r"\[[^\]]*\]", lambda bracket: bracket[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(text, COLUMNS - 2, break_long_words=False, break_on_hyphens=False)
    return "- " + "\n  ".join(lines).replace("\0", " ")


LATEX = r"""
% packages: booktabs, adjustbox
%- for sheet in sheets
\begin{table}
  \centering
  \caption{<< sheet.heading | tex >>}
  \footnotesize
%- for frame in sheet.frames
  \begin{adjustbox}{max width=\linewidth}
  \begin{tabular}{<< 'l' * frame | list | length >>}
    \toprule
    << frame | list | map('tex') | join(' & ') >> \\
    \midrule
%- for group in frame | groups
%- if not loop.first
    \addlinespace
%- endif
%- for row in group
    << row | map('tex') | join(' & ') >> \\
%- endfor
%- endfor
    \bottomrule
  \end{tabular}
  \end{adjustbox}\par\medskip
%- endfor
  \begin{minipage}{\linewidth}\footnotesize
%- for note in sheet.notes
    << note | tex >>\par
%- endfor
  \end{minipage}
\end{table}
% << sheet.inputs | one_line >>
%- endfor
% Made by << command | one_line >>
"""

TEX = str.maketrans(
    {
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "∞": r"$\infty$",
        "Δ": r"$\Delta$",
        "σ": r"$\sigma$",
        "²": r"\textsuperscript{2}",
        "τ": r"$\tau$",
        "×": r"$\times$",
        '"': "''",
        "|": r"\textbar{}",
    }
)


def _groups(frame):
    """The rows in one group for each target, which only the first row names; in one group where none is named."""
    if "target" not in frame:
        return [frame.to_numpy().tolist()]
    groups = [group.to_numpy().tolist() for _, group in frame.groupby("target", sort=False)]
    return [[first, *(["", *row[1:]] for row in others)] for first, *others in groups]


def latex(sheets, command):
    """The sheets as LaTeX (packages booktabs and adjustbox), the command and the inputs' hashes in comments."""
    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", line_statement_prefix="%-", keep_trailing_newline=True
    )
    environment.filters |= {
        "tex": lambda text: str(text).translate(TEX),
        "one_line": lambda text: " ".join(text.split()),
        "groups": _groups,
    }
    return environment.from_string(LATEX.lstrip()).render(sheets=sheets, command=command)


def csv(sheets, command):
    """All rows of all sheets at full precision, each with the hashes of its inputs and the command that makes it."""
    frames = []
    for sheet in sheets:
        digests = {}
        for method in (method for race in (sheet.race, *sheet.others) for method in race.methods):
            said = [digests[method.label]] if method.label in digests else []
            digests[method.label] = " ".join([*said, *(run.digest for run in method.runs)])
        behind = sheet.rows["method"].map(digests)
        if "against" in sheet.rows:  # a row of two methods
            behind = behind + " " + sheet.rows["against"].map(digests)
        frames.append(sheet.rows.assign(inputs_sha256=behind, command=command))
    return pd.concat(frames).to_csv(index=False)


def html(sheets, command):
    """The sheets as a page that needs nothing else, in the report's style."""
    from analysis.report.page import of_sheets

    return of_sheets(sheets, command) + "\n"


FORMS = {"markdown": markdown, "latex": latex, "csv": csv, "html": html}
