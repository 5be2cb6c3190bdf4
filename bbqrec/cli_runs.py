"""`bbqrec runs list | show | diff | prune`: what a store holds, where it came from, and what it can do without."""

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional
from tyro.extras import SubcommandApp

from bbqrec.errors import InputError
from bbqrec.pruning import leftovers, older_than, remove
from bbqrec.run_comparison import Difference, compare
from bbqrec.run_details import SUMMARY, details, listed
from bbqrec.run_registry import Registry, flat

runs_app = SubcommandApp()
Kind = Literal["all", "recommender", "quantizer", "trial"]
WIDE = 250
"""Columns of what is not printed on a terminal: a line of a table stays a line."""


@dataclass(frozen=True, kw_only=True)
class InStore:
    """Where to look."""

    store: str = "runs"
    """Folder or URL (s3://bucket/path) of the results."""

    def registry(self) -> Registry:
        """The store's runs; what else could not be read is said on stderr."""
        found = Registry(self.store)
        for remark in found.remarks:
            print(f"note: {remark}", file=sys.stderr)
        return found


@runs_app.command(name="list")
@dataclass(frozen=True, kw_only=True)
class List(InStore):
    """List the runs of a store: finished, in progress and damaged.

    Example: bbqrec runs list --store runs --kind recommender --dataset toys --method bbqrec tiger
    """

    kind: Kind = "all"
    """Recommenders, quantizers, or trials of tuning."""
    dataset: tuple[str, ...] = ()
    """Names of data sets. Default: all."""
    method: tuple[str, ...] = ()
    """Names of methods, or kinds of configs where no study names a method. Default: all."""
    json: bool = False
    """Print a JSON array."""
    csv: bool = False
    """Print CSV."""

    def run(self) -> None:
        if self.json and self.csv:
            raise InputError("--json and --csv are two formats", "give one of them")
        lines = listed(self.registry(), self.kind, self.dataset, self.method)
        if self.json:
            print_json(lines)
        elif self.csv:
            writer = csv.DictWriter(sys.stdout, SUMMARY, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        elif lines:
            show(_table(lines))
        else:
            print(f"no runs in store {self.store}")


@runs_app.command(name="show")
@dataclass(frozen=True, kw_only=True)
class Show(InStore):
    """Print everything about a run: scores, costs, provenance, files, config, and the studies and runs it belongs to.

    Example: bbqrec runs show 77c79410 --store runs
    """

    key: Positional[str]
    """Key of a run, or as much of its beginning as no other key begins with."""
    kind: Kind = "all"
    """Needed for a trial that has the key of a recommender."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        registry = self.registry()
        found = details(registry.find(self.key, None if self.kind == "all" else self.kind), registry)
        if self.json:
            return print_json(found)
        for title, group in found.items():
            print(f"\n{title}" if title != "run" else title)
            if isinstance(group, list):
                print(*(f"  {line}" for line in group), sep="\n")
            else:
                _fields(flat(group))


@runs_app.command(name="diff")
@dataclass(frozen=True, kw_only=True)
class Diff(InStore):
    """Print what differs between two recommenders or two quantizers: config, provenance, scores and costs.

    Example: bbqrec runs diff 77c79410 e88390b7 --store runs
    """

    one: Positional[str]
    """Key of a run, or its beginning."""
    other: Positional[str]
    """Key of another."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        registry = self.registry()
        one, other = registry.find(self.one), registry.find(self.other)
        found = compare(registry, one, other)
        if self.json:
            groups = {name: [vars(d) | {"change": d.change} for d in group] for name, group in found.groups.items()}
            return print_json({"one": one.key, "other": other.key, "says": found.statements, **groups})
        print(*found.statements, sep="\n")
        for name, group in found.groups.items():
            if group:
                show(_differences(name, one.key, other.key, group))


@runs_app.command(name="prune")
@dataclass(frozen=True, kw_only=True)
class Prune(InStore):
    """List what faults left in a store and, with --yes, remove it; runs and their checkpoints stay.

    That is attempts that were never published, checkpoints of finished runs, half-written files. Attempts that are at
    work are recognised by their young files: nothing younger than --older-than is touched.

    Example: bbqrec runs prune --store runs --older-than 7 --yes
    """

    older_than: float = 1.0
    """Days since the youngest file of a leftover changed. Less than 1 only where nothing is running."""
    unused: bool = False
    """Also trials of tuning, and quantizers that no study shows and no recommender reads: a command that needs one
    again trains it again."""
    yes: bool = False
    """Remove it."""
    json: bool = False
    """Print a JSON array."""

    def run(self) -> None:
        before = older_than(self.older_than)
        registry = self.registry()
        found, remarks = leftovers(registry, before, self.unused)
        for remark in remarks:
            print(f"note: {remark}", file=sys.stderr)
        gone = [leftover for leftover in found if not self.yes or remove(registry.files, leftover, before)]
        if self.json:
            return print_json([vars(leftover) | {"removed": self.yes and leftover in gone} for leftover in found])
        if gone:
            table = Table("name", "what it is", "last change")
            table.add_column("files", justify="right")
            table.add_column("bytes", justify="right")
            for leftover in gone:
                changed = datetime.fromtimestamp(leftover.modified, UTC).isoformat(" ", "minutes")[:16]
                words = (leftover.name, leftover.why, changed, str(leftover.files), f"{leftover.bytes:,}")
                table.add_row(*map(Text, words))
            show(table)
        total = f"{len(gone)} leftovers, {sum(leftover.bytes for leftover in gone):,} bytes"
        said = f"removed {total}" if self.yes else f"{total}: --yes removes them"
        print(said if found else "nothing to remove")


def show(table: Table) -> None:
    """A table, on one line per row where the output is no terminal."""
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=WIDE)).print(table)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _table(lines: list[dict[str, Any]]) -> Table:
    table = Table()
    for name in ("key", "kind", "method", "data set", "seed"):
        table.add_column(name, overflow="fold", no_wrap=name == "key")
    varied = any(line["setting"] for line in lines)
    if varied:
        table.add_column("setting", overflow="fold")
    for name in ("N@10 valid", "N@10 test", "seconds"):
        table.add_column(name, justify="right")
    for name in ("finished", "commit", "status"):
        table.add_column(name)
    for line in lines:
        status = f"damaged: {line['damage']}" if line["damage"] else line["status"]
        if line["status"] == "in progress":
            status += f", epoch {line['epoch']}, last change {line['modified'][:16]}"
        words = [line[name] for name in ("key", "kind", "method", "dataset", "seed")]
        words += [line["setting"]] if varied else []
        words += [None if line[name] is None else f"{line[name]:.4f}" for name in ("valid", "test")]
        words += [None if line["seconds"] is None else f"{line['seconds']:.0f}", (line["finished"] or "-")[:16]]
        words += [(line["commit"] or "-")[:7] + ("+" if line["dirty"] else ""), status]
        table.add_row(*(Text("-" if word is None else str(word)) for word in words))
    return table


def _differences(title: str, one: str, other: str, found: list[Difference]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("field", one, other):
        table.add_column(name, overflow="fold")
    table.add_column("change", justify="right")
    for difference in found:
        change = "" if difference.change is None else f"{difference.change:+.4g}"
        table.add_row(*map(Text, (difference.field, _shown(difference.one), _shown(difference.other), change)))
    return table


def _fields(fields: Mapping[str, Any]) -> None:
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        print(f"  {name.ljust(width)}  {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
