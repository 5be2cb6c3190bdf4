"""The page in headless Chromium: no request, no error, sorting, filters, provenance, keyboard, charts, phones, axe.

Needs playwright and a Chromium of the system (`apt-get install chromium`, or CHROMIUM=PATH); skipped without.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from page_store import HOSTILE, cell_of, fill_live, publish, write

from analysis.page import watch_page, write_page
from bbqrec.store import Store

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

AXE = Path(__file__).with_name("vendor") / "axe.min.js"
PHONE = {"width": 375, "height": 812}
VERDICTS = ("holds", "contradicted", "not significant", "not run")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """Every kind of section: a live study of ablations, a finished one of hyperparameters and one of baselines."""
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder / "store")
    fill_live(store)
    fields = [f"{field}={value}" for field in ("quantizer.levels", "recommender.buckets") for value in (1, 2, 3)]
    cells = [cell_of("bbqrec", "toys", seed, f"h-{s}-{seed}", setting=s) for s in fields for seed in range(2)]
    others = [cell_of(method, "toys", seed, f"b-{method}-{seed}") for method in ("sasrec", "tiger") for seed in (0, 1)]
    others += [cell_of("bbqrec", "toys", seed, f"b-bbqrec-{seed}") for seed in (0, 1)]
    write(store, "hyperparameters", cells)
    write(store, "baselines", others)
    for place, cell in enumerate([*cells, *others]):
        publish(store, cell, 400, 0.04 + 0.005 * place)
    claims = [SimpleNamespace(section="5.2", sentence="A claim.", verdict=v, details=HOSTILE) for v in VERDICTS]
    return write_page(store.url, folder / "index.html", judge=lambda whole: claims)


@pytest.fixture
def visit(browser, page_file) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end none may have said anything on the console or asked for anything but itself."""
    contexts, wrong = [], []

    def open_page(file: Path = page_file, fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))
        tab.on("request", lambda request: request.url.startswith(file.as_uri()) or wrong.append(request.url))
        tab.goto(file.as_uri() + fragment)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def column(tab: Any, table: str, place: int) -> list[str]:
    found = tab.locator(f"#{table} tbody tr:not([hidden]) > *:nth-child({place})").all_inner_texts()
    return [text.strip() for text in found]


def test_headings_sort_numbers_as_numbers_and_empty_cells_stay_below(visit):
    tab = visit()
    heading = tab.locator("#all-cells thead th").nth(8)
    assert heading.inner_text().strip() == "N@10"
    heading.get_by_role("button").click()
    down = column(tab, "all-cells", 9)
    numbers = [float(text) for text in down if text]
    assert len(numbers) > 10 and numbers == sorted(numbers, reverse=True)
    assert down[len(numbers) :] == [""] * 6, "cells without a number stay below"
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")
    up = column(tab, "all-cells", 9)
    assert [float(text) for text in up if text] == sorted(numbers)
    assert up[len(numbers) :] == [""] * 6
    tab.locator("#all-cells thead th").nth(0).get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None
    names = column(tab, "all-cells", 1)
    assert names == sorted(names, key=str.lower)


def test_durations_sort_by_length(visit):
    tab = visit()
    tab.locator("#cells-running thead th").nth(6).get_by_role("button").click()
    assert column(tab, "cells-running", 7) == ["0.13 h", ""]


def test_the_filter_keeps_lines_with_all_its_words(visit):
    tab = visit()
    tab.locator("#all-cells").get_by_role("searchbox").fill("levels=2  hyper")
    assert column(tab, "all-cells", 1) == ["BBQRec quantizer.levels=2"] * 2
    assert tab.locator("#all-cells output").inner_text() == "2 of 30"
    tab.locator("#all-cells").get_by_role("searchbox").fill("")
    assert len(column(tab, "all-cells", 1)) == 30


def test_a_cell_opens_its_provenance_and_escape_gives_the_focus_back(visit):
    tab = visit()
    dialog = tab.get_by_role("dialog")
    link = tab.locator("#table3 td a.cell").filter(has_text=re.compile(r"^0\.")).first
    link.focus()
    tab.keyboard.press("Enter")
    sync_api.expect(dialog).to_be_visible()
    assert tab.evaluate("location.hash") == "#run=toys-bbqrec%2Ctoys-bbqrec-1"
    assert tab.evaluate("document.activeElement.id") == "provenance-title"
    choice = dialog.locator(".choice button")
    assert choice.all_inner_texts() == ["Toys, seed 0", "Toys, seed 1"]
    choice.nth(1).click()
    assert "toys-bbqrec-1" in dialog.inner_text()
    assert "0123456789abcdef" in dialog.inner_text() and "f" * 64 in dialog.inner_text()
    for _ in range(12):  # the focus stays within
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    tab.keyboard.press("Escape")
    sync_api.expect(dialog).to_be_hidden()
    assert tab.evaluate("location.hash") == ""
    assert tab.evaluate("document.activeElement.getAttribute('href')") == "#run=toys-bbqrec%2Ctoys-bbqrec-1"
    tab.keyboard.press("Enter")
    sync_api.expect(dialog).to_be_visible()


def test_a_link_to_a_run_opens_it_with_its_config_and_follows_to_the_full_model(visit):
    tab = visit(fragment="#run=toys-bbqrec-no-id")
    dialog = tab.get_by_role("dialog")
    assert dialog.get_by_role("heading", level=2).inner_text() == "w/o ID, Toys, seed 0"
    assert "quantizer.levels\t3\t2" in dialog.locator(".config table").inner_text()
    dialog.locator(".config a").click()
    sync_api.expect(dialog.get_by_role("heading", level=2)).to_have_text("BBQRec, Toys, seed 0")
    assert "the full model's own run" in dialog.inner_text()
    dialog.get_by_role("button", name="Close").click()
    sync_api.expect(dialog).to_be_hidden()


@pytest.mark.parametrize("fragment", ["#run=nowhere", "#run=%E0%A4%A", "#run=__proto__", "#run=" + HOSTILE])
def test_links_to_runs_that_are_not_there(visit, fragment):
    tab = visit(fragment=fragment)
    if "%E0" not in fragment:
        assert "This page has no such run." in tab.get_by_role("dialog").inner_text()


def test_every_cell_of_the_tables_opens_a_record(visit):
    tab = visit()
    known = set(json.loads(tab.locator("#runs").inner_text(timeout=1000) or tab.evaluate("runs.textContent")))
    linked = tab.evaluate(
        "[...document.querySelectorAll('a.cell')].flatMap(a => decodeURIComponent(a.hash.slice(5)).split(','))"
    )
    assert len(linked) > 200 and set(linked) == known
    numbers = tab.evaluate("[...document.querySelectorAll('.paper td')].filter(c => /\\d/.test(c.textContent)).length")
    assert numbers == tab.locator(".paper td a.cell").filter(has_text=re.compile(r"\d")).count() > 40


def test_a_failed_cell_tells_its_whole_error(visit):
    tab = visit(fragment="#run=toys-bbqrec-no-u")
    text = tab.get_by_role("dialog").inner_text()
    assert "Traceback" in text and HOSTILE in text
    assert "Not known before the run is done." in text
    assert tab.locator("img").count() == 0


def test_a_chart_tells_values_to_pointers_and_keys_and_opens_runs(visit):
    tab = visit()
    chart = tab.locator("#figure3 svg.chart").first
    chart.scroll_into_view_if_needed()
    dot = chart.locator("g.series").nth(1).locator("circle").nth(2).bounding_box()
    tab.mouse.move(dot["x"] + 4, dot["y"] + 3)
    values = chart.locator("g.series[data-look='1']").get_attribute("data-py").split()
    assert tab.locator("#tip").inner_text() == f"R@10 3: {values[2]}"
    tab.mouse.move(2, 2)
    sync_api.expect(tab.locator("#tip")).to_be_hidden()
    chart.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    first = tab.locator("#tip").inner_text()
    assert re.fullmatch(r"R@5 2: 0\.\d{4}", first)
    tab.keyboard.press("Enter")
    sync_api.expect(tab.get_by_role("dialog")).to_be_visible()
    assert tab.evaluate("decodeURIComponent(location.hash)") == "#run=h-quantizer.levels=2-0,h-quantizer.levels=2-1"


def test_the_legend_hides_a_line_in_all_panels(visit):
    tab = visit()
    key = tab.locator("#figure3 button.key").first
    lines = tab.locator("#figure3 g.series[data-look='0']")
    assert lines.count() == 2 and lines.first.is_visible()
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    assert not lines.first.is_visible() and not lines.last.is_visible()
    assert tab.locator("#figure3 g.series[data-look='1']").first.is_visible()
    key.click()
    assert lines.first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_axe_finds_nothing_with_the_panel_closed_and_open(visit, scheme, phone):
    tab = visit(color_scheme=scheme, **({"viewport": PHONE} if phone else {}))
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    for opened in (False, True):
        if opened:
            tab.locator("#table3 td a.cell").first.click()
        found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
        broken = [(v["id"], v["nodes"][0]["html"][:160]) for v in found["violations"]]
        assert broken == []


def test_a_phone_scrolls_tables_and_not_the_page(visit):
    tab = visit(viewport=PHONE, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    box = tab.locator("#all-cells .scroll")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    name = tab.locator("#all-cells tbody th").first
    before = name.bounding_box()["x"]
    box.evaluate("e => { e.scrollLeft = 300 }")
    assert name.bounding_box()["x"] == pytest.approx(before, abs=1), "the first column stays"
    letters = tab.locator("#figure3 svg.chart text.tick").first.evaluate("e => e.getBoundingClientRect().height")
    assert letters >= 11


def test_the_theme_can_be_chosen_and_stays(visit):
    tab = visit(color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(colour)
    button = tab.locator("#theme")
    button.click()
    button.click()
    assert button.inner_text() == "Theme: dark" and tab.evaluate(colour) != light
    tab.reload()
    assert tab.locator("#theme").inner_text() == "Theme: dark" and tab.evaluate(colour) != light


def test_without_a_script_the_page_reads(visit):
    tab = visit(java_script_enabled=False)
    assert tab.locator("#table3").is_visible() and tab.locator("#figure3 polyline").count() == 8
    assert not tab.locator("#all-cells .tools").is_visible(), "no filter that does nothing"


def test_a_live_page_reloads_as_it_was(visit, tmp_path):
    store, out = Store(tmp_path / "store"), tmp_path / "live.html"
    fill_live(store)
    pages = watch_page(store.url, out, 2, sleep=lambda seconds: None)
    next(pages)
    tab = visit(out)
    tab.locator("#all-cells").get_by_role("searchbox").fill("bbqrec")
    tab.locator("#all-cells thead th").nth(3).get_by_role("button").click()
    tab.locator("#curves-ablations button.key").first.click()
    tab.evaluate("scrollTo(0, 700)")
    publish(store, cell_of("bbqrec/e", "toys", 0, "toys-bbqrec-e"), 400)
    next(pages)
    sync_api.expect(tab.locator(".states")).to_contain_text("7 done", timeout=8000)
    assert tab.evaluate("scrollY") == 700
    assert tab.locator("#all-cells").get_by_role("searchbox").input_value() == "bbqrec"
    assert tab.locator("#all-cells thead th").nth(3).get_attribute("aria-sort") == "descending"
    assert tab.locator("#curves-ablations button.key").first.get_attribute("aria-pressed") == "false"
    pages.close()
    sync_api.expect(tab.locator(".built")).not_to_contain_text("live", timeout=8000)
