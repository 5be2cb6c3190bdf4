"""Ray's dashboard in headless Chromium while a study runs: it asks for the token, and its pages say what runs.

Needs playwright and a Chromium of the system (`apt-get install chromium`, or CHROMIUM=PATH), and
BBQREC_SCREENSHOTS=FOLDER, where it leaves a picture of each page; skipped without. To be run by itself: it looks at the
pages of another project, and what they show in which second is theirs.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from sweeps.launch import Resources, launch

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif("BBQREC_SCREENSHOTS" not in os.environ, reason="BBQREC_SCREENSHOTS names no folder for it"),
]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOKEN = "0123456789abcdef" * 4
EPOCH = re.compile(r"toy bbqrec seed 0 (quantizer: epoch 1/2|recommender: epoch 1/900), loss 1\.0000")
"""In the log of an actor: it may be that of either run."""
PICTURES = os.environ.get("BBQREC_SCREENSHOTS", "")


class Visitor(threading.Thread):
    """Visits the dashboard while a study runs, and then ends the study as Ctrl-C does.

    `seen` has the text of each page, `error` what went wrong; `over` is for the study to tell that it has ended.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = False
        self.seen: dict[str, str] = {}
        self.cookies: set[str] = set()
        self.titles: set[str] = set()
        self.refused: int | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not ray.is_initialized():
                time.sleep(0.1)
            with sync_api.sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                self.visit(f"http://{ray._private.worker.get_dashboard_url()}", browser)
                browser.close()
        except BaseException as error:
            self.error = error
        if not self.over:
            os.kill(os.getpid(), signal.SIGINT)

    def visit(self, url: str, browser: Any) -> None:
        try:
            urllib.request.urlopen(f"{url}/api/jobs/", timeout=30)
        except urllib.error.HTTPError as error:
            self.refused = error.code
        tab = browser.new_page(viewport={"width": 1600, "height": 900})
        tab.set_default_timeout(60_000)
        tab.goto(url)
        tab.get_by_placeholder("Enter your authentication token").fill(TOKEN)
        tab.get_by_role("button", name="Submit").click()
        for page, path, sign in (
            ("jobs", "jobs", "RUNNING"),
            ("actors", "actors", "runs of ablations"),
            ("metrics", "metrics", "Prometheus"),
        ):
            tab.goto(f"{url}/#/{path}")
            tab.get_by_text(sign).first.wait_for()
            self.keep(page, tab)
        tab.goto(f"{url}/#/actors")
        tab.get_by_role("link", name="Log").first.wait_for()
        tab.locator("tbody tr a").first.click()
        for _ in range(8):  # a log is fetched once, and a busy dashboard may fail to
            tab.reload()
            tab.get_by_role("tab", name="STDOUT").click()
            with contextlib.suppress(sync_api.TimeoutError):
                tab.get_by_text(EPOCH).first.wait_for(timeout=6000)
                break
        self.keep("actor", tab)
        tab.goto(f"{url}/#/cluster")
        tab.get_by_text("ALIVE").first.wait_for()
        self.keep("cluster", tab)
        for _ in range(20):  # what the page of nodes shows of one, when its row is opened
            answer = tab.request.get(f"{url}/nodes/{ray.nodes()[0]['NodeID']}").json()
            self.titles = {" ".join(worker["cmdline"]).strip() for worker in answer["data"]["detail"]["workers"]}
            if any(title.startswith("ray::toy") for title in self.titles):
                break
            time.sleep(1)
        self.cookies = {cookie["name"] for cookie in tab.context.cookies()}

    def keep(self, page: str, tab: Any) -> None:
        self.seen[page] = tab.inner_text("body")
        tab.screenshot(path=Path(PICTURES) / f"{page}.png")


def test_the_dashboard_says_what_runs(study, store, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT)]))
    monkeypatch.setenv("FAKE_STAGES", json.dumps({"seconds": 1.0}))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    plan = study(methods=("bbqrec",), overrides={"recommender.epochs": 900}).plan(store)  # longer than any visit
    visitor = Visitor()
    visitor.start()
    resources = Resources(cpus_per_run=1, max_concurrent=1, dashboard=True)
    try:
        ledger = launch(plan, store, resources, console=Console(file=io.StringIO()), stages="fake_stages")
    finally:
        visitor.over = True
    visitor.join(60)
    if visitor.error is not None:
        raise visitor.error
    assert not visitor.is_alive() and not ledger.complete and not ledger.errors
    assert visitor.refused == 401, "without the token"
    assert "ray-authentication-token" in visitor.cookies
    assert "bbqrec_run" in visitor.seen["actors"] and "127.0.0.1" in visitor.seen["actors"]
    assert not any("ImplicitFunc" in text for text in visitor.seen.values())
    assert EPOCH.search(visitor.seen["actor"])
    assert "ray::toy bbqrec seed 0 recommender" in visitor.titles
