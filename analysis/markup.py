"""The two ways to write a table down: a LaTeX template, a Markdown template, and what LaTeX must not see raw."""

import unicodedata
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

LATEX = Environment(
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
    autoescape=False,
)
"""Templates of LaTeX, whose braces and percent signs are LaTeX's."""

_TABLE = LATEX.from_string(r"""% Written by `python -m analysis`. Needs \usepackage{<< packages >>}.
\begin{table*}[t]
  \centering
  \caption{<< caption >>}
  \label{tab:<< name >>}
  \medskip

  \<< size >>\setlength{\tabcolsep}{<< 3 if fitted else 4 >>pt}
<% if fitted %>
  \setbox0=\hbox{%
<% endif %>
  \begin{tabular}{@{}ll<< "c" * labels | length >>@{}}
    \toprule
<% if spans %>
    & <% for name, width in spans %>& \multicolumn{<< width >>}{c}{<< name >>} <% endfor %>\\
    << rules >>
<% endif %>
    << heads | join(" & ") >> & << labels | join(" & ") >> \\
    \midrule
<% for group in groups %>
<% for dataset, metric, entries, space in group %>
<% set name = "\\multirow{" ~ group | length ~ "}{*}{" ~ dataset ~ "}" if dataset else "" %>
    << name >> & << metric >> & << entries | join(" & ") >> \\<< space >>
<% endfor %>
<% if not loop.last %>
    \midrule
<% endif %>
<% endfor %>
    \bottomrule
  \end{tabular}
<% if fitted %>
  }\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi
<% endif %>
<% if notes or remarks %>

  \smallskip
  \begin{minipage}{\linewidth}\footnotesize\raggedright
<% for mark, text in notes %>
    \textsuperscript{<< mark >>}~<< text >>\par
<% endfor %>
<% for text in remarks %>
    << text >>\par
<% endfor %>
  \end{minipage}
<% endif %>
\end{table*}
""")

_TEXT = LATEX.from_string(r"""% Needs \usepackage{array,booktabs,longtable}.
{\footnotesize
\begin{longtable}{<% for width in widths %>>{\raggedright\arraybackslash}p{<< width >>\linewidth}<% endfor %>}
  \caption{<< caption >>}\\
  \toprule
  << heads | join(" & ") >> \\
  \midrule
  \endfirsthead
  \toprule
  << heads | join(" & ") >> \\
  \midrule
  \endhead
<% for row in rows %>
  << row | join(" & ") >> \\
<% endfor %>
  \bottomrule
\end{longtable}
}
""")

_MARKDOWN = Environment(
    trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False
).from_string("""{{ caption }}

{% for row in rows %}
| {{ row | join(" | ") }} |
{% if loop.first %}
|{{ rules | join("|") }}|
{% endif %}
{% endfor %}
{% if notes or remarks %}

{% for mark, text in notes %}
- [{{ mark }}] {{ text }}
{% endfor %}
{% for text in remarks %}
- {{ text }}
{% endfor %}
{% endif %}
""")

LONG_WORD = 24
"""Characters of a word that might not fit into what is left of a line."""

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl wants another font encoding
    "±": r"$\pm$",
    "¬": r"$\neg$",
    "×": r"$\times$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    **{sign: f"\\{sign}" for sign in "{}$&#%_"},
}


def latex_document(spans: Sequence[tuple[str, int]], fitted: bool, **fields: object) -> str:
    """Fields are LaTeX already; a group is a list of (dataset, metric, entries, space below), a note (mark, text).

    A span is a heading and the number of columns below it. A `fitted` table that is wider than the page is shrunk:
    it is made for pages of 17 cm between the margins.
    """
    rules, column = [], 3
    for name, width in spans:
        rules += [rf"\cmidrule(lr){{{column}-{column + width - 1}}}"] if name else []
        column += width
    packages = "booktabs,graphicx,multirow" if fitted else "booktabs,multirow"
    return _TABLE.render(rules="".join(rules), packages=packages, spans=spans, fitted=fitted, **fields)


def text_table(caption: str, heads: Sequence[str], widths: Sequence[float], rows: Sequence[Sequence[str]]) -> str:
    """LaTeX of a table of plain text over as many pages as it takes; widths are shares of the line."""
    escaped = [[escape(text, breakable=True) for text in row] for row in rows]
    return _TEXT.render(caption=escape(caption), heads=[escape(head) for head in heads], widths=widths, rows=escaped)


def markdown_document(
    caption: str,
    header: Sequence[str],
    body: Sequence[Sequence[str]],
    notes: Sequence[tuple[str, str]],
    remarks: Sequence[str],
    names: int = 2,
) -> str:
    """Columns are padded, so that a terminal shows the table straight; the first are `names`, the others numbers."""
    cells = [[_cell(text) for text in row] for row in (header, *body)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    padded = [
        [
            text.ljust(width) if place < names else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    rules = [f":{'-' * (w + 1)}" if place < names else f"{'-' * (w + 1)}:" for place, w in enumerate(widths)]
    lines = [(mark, _line(text)) for mark, text in notes]
    return _MARKDOWN.render(
        caption=_line(caption), rows=padded, rules=rules, notes=lines, remarks=[_line(text) for text in remarks]
    )


def escape(text: str, breakable: bool = False) -> str:
    """Text that LaTeX sets as it is; signs that it lacks become "?". `breakable` lets long words (paths) break."""
    return " ".join(_escaped_word(word, breakable and len(word) > LONG_WORD) for word in text.split())


def _escaped_word(word: str, breakable: bool) -> str:
    signs = []
    for sign in word:
        signs.append(_COMMANDS.get(sign) or (sign if _is_plain(sign) else "?"))
        if breakable and not sign.isalpha():
            signs.append(r"\allowbreak{}")
    return "".join(signs)


def _is_plain(sign: str) -> bool:
    """ASCII, and the accented letters of Western languages."""
    if ord(sign) < 128:
        return sign.isprintable()
    base = unicodedata.normalize("NFD", sign)[0]
    return ord(sign) < 256 and (sign in "ßæøåÆØÅ" or (base.isascii() and base.isalpha()))


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())
