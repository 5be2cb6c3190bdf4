"""Looks at pages of Ray's dashboard in headless Chromium: python dashboard.py CHROMIUM TOKEN FOLDER PAGE...

Of each PAGE (jobs, actors, ...) it saves a picture in FOLDER and prints the text, as one JSON object.
"""

import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

URL = "http://127.0.0.1:8265"


def main(chromium: str, token: str, folder: str, *pages: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1600, "height": 900})
        context.add_cookies([{"name": "ray-authentication-token", "value": token, "url": URL}])
        seen = {}
        for name in pages:
            page = context.new_page()
            page.goto(f"{URL}/#/{name}")
            page.wait_for_selector("table tbody tr", timeout=60_000)
            page.wait_for_timeout(1500)
            page.screenshot(path=str(Path(folder, name.replace("/", "-") + ".png")))
            seen[name] = page.inner_text("body")
        browser.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
