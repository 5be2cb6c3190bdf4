"""One self-contained page of a store's studies: no network, no build step, light and dark, with and without a script.

`tables`, `figures`, `runs`, `codebooks`, `state` and `studies` make plain JSON types of rows, `model` puts them
together, `render` fills page.html, and `watch` does so again while a study runs.
"""

from analysis.page.render import write_page
from analysis.page.watch import watch_page

__all__ = ["watch_page", "write_page"]
