"""What a tuning prints: its plan, what is varied, and what was found."""

from rich.table import Table

from sweeps.search_spaces import LogUniform
from sweeps.series import Series
from sweeps.trials import Budget
from sweeps.tuned import tuned_file
from sweeps.tuning_ledger import TuningLedger


def plan(ledger: TuningLedger) -> Table:
    """The table that is printed before anything starts."""
    budget = ledger.series[0].budget
    stops = {"asha": "stopped by ASHA", "median": "stopped by the median rule", "none": "no stops"}[budget.stop]
    table = Table(title=f"Plan of tuning: {len(ledger.series)} x {budget.trials} trials, {stops}", title_justify="left")
    for column in ("data set", "method"):
        table.add_column(column)
    for column in ("fields", "epochs", "stops after", "trials done", "to go"):
        table.add_column(column, justify="right")
    for series in ledger.series:
        told, budget = len(series.told), series.budget
        figures = (len(series.space), budget.epochs, _stops(budget), told, budget.trials - told)
        table.add_row(series.dataset.name, series.method, *map(str, figures))
    return table


def scope(ledger: TuningLedger, profile: str, given: dict[str, str]) -> str:
    """Profile, overrides, number of seed points, and every method's space, a line each."""
    lines = [f"profile: {profile}"]
    lines += [f"set: {', '.join(f'{path}={value}' for path, value in given.items())}"] if given else []
    if points := {series.method: len(series.points) for series in ledger.series if series.points}:
        lines.append(f"seed points: {', '.join(f'{method} {count}' for method, count in points.items())}")
    for series in {series.method: series for series in ledger.series}.values():
        domains = []
        for path, domain in series.space.items():
            values = f"{domain.low:g} to {domain.high:g}" if isinstance(domain, LogUniform) else _joined(domain.values)
            domains.append(f"{path} {values} (default {series.default[path]:g})")
        lines.append(f"{series.method}: {'; '.join(domains)}")
    return "\n".join(lines)


def summary(ledger: TuningLedger) -> Table:
    """What was found: a row per data set and method."""
    table = Table(title="Tuned by validation NDCG@10", title_justify="left")
    for column in ("data set", "method"):
        table.add_column(column)
    for column in ("trials", "stopped, diverged", "epochs", "best", "default"):
        table.add_column(column, justify="right")
    for series in ledger.series:
        trials, best = series.trials, series.chosen
        ends = [trial.end for trial in trials]
        early = f"{ends.count('stopped')}, {ends.count('diverged')}"
        figures = (len(trials), early, sum(len(t.scores) for t in trials))
        scores = [best and best.score, trials[0].score if trials else None]
        shown = [f"{score:.4f}" if score is not None else "-" for score in scores]
        table.add_row(series.dataset.name, series.method, *map(str, figures), *shown)
    return table


def outcome(series: Series) -> str:
    """What was chosen, or why nothing was."""
    if series.chosen is not None:
        values = " ".join(f"{path}={value:g}" for path, value in series.chosen.overrides.items())
        where = tuned_file(series.tuned, series.dataset.name, series.method)
        return f"{series.name}: {values}{' (the default)' if series.chosen.number == 0 else ''}, in {where}"
    return f"{series.name}: {series.failed or ('every trial diverged' if series.complete else 'not finished')}"


def _stops(budget: Budget) -> str:
    """The epochs after which a trial may be stopped."""
    if budget.stop == "asha":
        return ", ".join(map(str, budget.rungs)) or "-"
    return f"{budget.grace} and more" if budget.stop == "median" else "-"


def _joined(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
