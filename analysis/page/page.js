"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const made = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const kept = (storage, name, value) => { // a browser may refuse storage to a file
    try {
      if (value === undefined) return window[storage].getItem(name);
      window[storage].setItem(name, value);
    } catch { /* then nothing is kept */ }
    return null;
  };

  // Light, dark, or as the system has it.
  const theme = one("#theme");
  const themes = ["auto", "light", "dark"];
  const paint = (name) => {
    document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
  };
  paint(themes.includes(kept("localStorage", "theme")) ? kept("localStorage", "theme") : "auto");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    paint(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
    kept("localStorage", "theme", document.documentElement.dataset.theme);
  });

  // Tables: sort by a heading, keep the lines that have all words of the filter.
  const sorted = {};
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
      return cell.textContent.trim().toLowerCase() || null;
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // empty cells stay below
      if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
      return direction * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
    });
    body.append(...rows.map(([, row]) => row));
    all("thead th", table).forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    sorted[table.closest(".flat").id] = [column, direction];
  };
  const filter = (part) => {
    const words = one("input", part).value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...one("tbody", part).rows];
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += !row.hidden;
    }
    one("output", part).textContent = words.length ? `${left} of ${rows.length}` : `${rows.length} lines`;
  };
  for (const part of all(".flat")) {
    const table = one("table", part);
    all("thead th", table).forEach((head, column) => {
      const button = made("button", head.textContent, { type: "button" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const numbers = head.classList.contains("n");
        const up = head.getAttribute("aria-sort") === "ascending";
        const down = head.getAttribute("aria-sort") === "descending";
        sort(table, column, up ? -1 : down ? 1 : numbers ? -1 : 1);
      });
    });
    if (table.tBodies[0].rows.length > 4) {
      one(".tools", part).hidden = false;
      one("input", part).setAttribute("aria-label", `Filter ${one(".scroll", part).getAttribute("aria-label")}`);
      one("input", part).addEventListener("input", () => filter(part));
      filter(part);
    }
    for (const row of table.tBodies[0].rows) {
      const link = one("a.cell", row);
      if (!link) continue;
      row.classList.add("opens");
      row.addEventListener("click", (event) => {
        if (!event.target.closest("a") && !String(getSelection())) link.click();
      });
    }
  }

  // Provenance: #run=KEY or #run=KEY,KEY,... in the address.
  const runs = JSON.parse(one("#runs").textContent);
  const dialog = one("#provenance");
  const pairs = (found) => {
    const list = made("dl");
    for (const [name, value] of found) list.append(made("dt", name), made("dd", value));
    return list;
  };
  const grid = (heads, lines) => {
    const table = made("table");
    const head = made("tr");
    head.append(...heads.map((text) => made("th", text, { scope: "col" })));
    table.append(made("thead"), made("tbody"));
    table.tHead.append(head);
    for (const [first, ...others] of lines) {
      const row = made("tr");
      row.append(made("th", first, { scope: "row" }), ...others.map((text) => made("td", text)));
      table.tBodies[0].append(row);
    }
    return table;
  };
  const config = (key, record) => {
    const box = made("div", undefined, { class: "config" });
    box.append(made("h3", "Config against the full model"));
    if (record.diff === undefined) {
      const why = record.status === "done" ? "Not known: exported rows have no configs, or the study has no full model."
        : "Not known before the run is done.";
      box.append(made("p", why));
    } else if (key === record.full) {
      box.append(made("p", "This is the full model's own run."));
    } else {
      const said = made("p", record.diff.length ? "Against run " : "The same config as run ");
      said.append(made("a", record.full, { href: `#run=${encodeURIComponent(record.full)}` }), ".");
      box.append(said);
      if (record.diff.length) box.append(grid(["Field", "Full model", "This run"], record.diff));
    }
    return box;
  };
  const fill = (keys, key) => {
    const body = one(".body", dialog);
    const record = Object.hasOwn(runs, key) ? runs[key] : null;
    one("h2", dialog).textContent = record ? `${record.title}, ${record.about}` : `Run ${key}`;
    const parts = [];
    if (keys.length > 1) {
      const choice = made("div", undefined, { class: "choice", role: "group", "aria-label": "Runs of this cell" });
      const several = new Set(keys.map((other) => runs[other]?.title)).size > 1;
      for (const other of keys) {
        const known = Object.hasOwn(runs, other) ? runs[other] : null;
        const label = known ? (several ? `${known.title}, ${known.about}` : known.about) : other;
        const button = made("button", label, { type: "button", "aria-pressed": String(other === key) });
        button.addEventListener("click", () => {
          fill(keys, other);
          one(`.choice button[aria-pressed="true"]`, dialog).focus();
        });
        choice.append(button);
      }
      parts.push(choice);
    }
    if (record) {
      if (record.shown.length) {
        const shown = made("ul", undefined, { class: "shown" });
        shown.append(...record.shown.map((text) => made("li", text)));
        parts.push(made("h3", "Shown as"), shown);
      }
      const [state, ...others] = record.groups;
      parts.push(made("h3", state[0]), pairs(state[1]), config(key, record));
      for (const [head, found] of others) parts.push(made("h3", head), pairs(found));
    } else {
      parts.push(made("p", "This page has no such run."));
    }
    body.replaceChildren(...parts);
    body.scrollTop = 0;
  };
  const follow = () => {
    const match = /^#run=(.+)$/.exec(location.hash);
    if (!match) {
      if (dialog.open) dialog.close();
      return;
    }
    let keys;
    try { keys = decodeURIComponent(match[1]).split(","); } catch { return; }
    fill(keys, keys[0]);
    if (!dialog.open) dialog.showModal();
    one("h2", dialog).focus();
  };
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#run=")) history.replaceState(null, "", location.pathname + location.search);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
  addEventListener("hashchange", follow);
  // The same cell again: its address may be that of the closed panel's entry in the history.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#run="]');
    if (link && link.hash === location.hash) follow();
  });

  // Charts: values below the pointer or the arrow keys, lines that hide.
  const tip = one("#tip");
  const points = (svg) => {
    const numbers = (text) => text.split(" ").map(Number);
    if (svg.classList.contains("bars")) {
      return all("g.bar", svg).map((bar) => {
        const box = one("rect", bar);
        const [x, y, wide] = ["x", "y", "width"].map((name) => Number(box.getAttribute(name)));
        const { look, group, said, runs } = bar.dataset;
        return [{ element: bar, name: "", look, where: group, said, runs, x: x + wide / 2, y }];
      });
    }
    const names = svg.dataset.xs?.split("|");
    const [x0, left, x1, right] = numbers(svg.dataset.x);
    const [y0, low, y1, high] = numbers(svg.dataset.y);
    return all("g.series", svg).map((series) => {
      const { name, look, px, py, runs } = series.dataset;
      if (!px) return [];
      const xs = numbers(px), ys = py.split(" "), keys = runs.split(" ");
      return xs.map((value, place) => ({
        element: series, name, look, said: ys[place], runs: keys.length > 1 ? keys[place] : keys[0],
        where: names ? names[value] : `epoch ${value}`,
        x: left + (value - x0) / (x1 - x0) * (right - left),
        y: low + (ys[place] - y0) / (y1 - y0) * (high - low),
      }));
    });
  };
  for (const svg of all("svg.chart")) {
    const legend = all(".key", svg.closest(".figure")).map((key) => key.textContent.trim());
    let lines = null, current = null;
    const visible = () => (lines ??= points(svg)).filter((l) => l.length && !l[0].element.classList.contains("off"));
    const ring = document.createElementNS(svg.namespaceURI, "circle");
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", "5.5");
    const show = (point) => {
      for (const hot of all(".hot", svg)) hot.classList.remove("hot");
      current = point;
      svg.classList.toggle("focused", Boolean(point));
      if (!point) {
        tip.hidden = true;
        ring.remove();
        return;
      }
      point.element.classList.add("hot");
      if (point.name) svg.append(point.element); // above the other lines
      ring.setAttribute("cx", point.x);
      ring.setAttribute("cy", point.y);
      svg.append(ring);
      tip.replaceChildren(made("b", point.name || legend[point.look]), ` ${point.where}: `, made("span", point.said));
      tip.hidden = false;
      const at = new DOMPoint(point.x, point.y).matrixTransform(svg.getScreenCTM());
      const { width, height } = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, at.x - width / 2))}px`;
      tip.style.top = `${at.y - height - 12 > 4 ? at.y - height - 12 : at.y + 14}px`;
    };
    svg.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null, least = 40 ** 2;
      for (const point of visible().flat()) {
        const far = (point.x - at.x) ** 2 + (point.y - at.y) ** 2;
        if (far < least) [best, least] = [point, far];
      }
      show(best);
    });
    svg.addEventListener("pointerleave", () => show(null));
    const open = () => { if (current?.runs) location.hash = `run=${encodeURIComponent(current.runs)}`; };
    svg.addEventListener("click", open);
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "chart, arrow keys go through its points");
    svg.addEventListener("blur", () => show(null));
    svg.addEventListener("keydown", (event) => {
      const shown = visible();
      const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
      if (event.key === "Enter") return open();
      if (event.key === "Escape") return show(null);
      if (!steps[event.key] || !shown.length) return undefined;
      event.preventDefault();
      let line = shown.findIndex((points) => points.includes(current));
      if (line < 0) return show(shown[0][0]);
      let place = shown[line].indexOf(current);
      const [up, right] = steps[event.key];
      line = (line + up + shown.length) % shown.length;
      place = Math.max(0, Math.min(shown[line].length - 1, place + right));
      if (shown[line].length === 1 && right) line = (line + right + shown.length) % shown.length;
      return show(shown[line][place]);
    });
  }
  const hide = (figure, look, off) => {
    for (const element of all(`svg.chart [data-look="${look}"]`, figure)) element.classList.toggle("off", off);
    one(`.key[data-look="${look}"]`, figure).setAttribute("aria-pressed", String(!off));
  };
  for (const figure of all(".figure")) {
    for (const key of all(".key", figure)) {
      const button = made("button", undefined, { type: "button", class: "key", "aria-pressed": "true" });
      button.dataset.look = key.dataset.look;
      button.append(...key.childNodes);
      key.replaceWith(button);
      button.addEventListener("click", () => {
        hide(figure, button.dataset.look, button.getAttribute("aria-pressed") === "true");
      });
    }
  }

  // A live page reloads itself as it was: place, filters, order, hidden lines.
  const seconds = Number(document.body.dataset.refresh);
  const place = `page ${location.pathname}`;
  if (seconds) {
    const reload = () => {
      if (dialog.open || document.activeElement?.matches("input")) return setTimeout(reload, 1000);
      const filters = Object.fromEntries(all(".flat").map((part) => [part.id, one("input", part).value]));
      const off = all('.key[aria-pressed="false"]').map((key) => [key.closest(".figure").id, key.dataset.look]);
      kept("sessionStorage", place, JSON.stringify({ y: scrollY, filters, sorted, off }));
      return location.reload();
    };
    setTimeout(reload, 1000 * seconds);
  }
  const before = kept("sessionStorage", place);
  if (before) {
    const { y, filters, sorted: order, off } = JSON.parse(before);
    for (const part of all(".flat")) {
      if (order[part.id]) sort(one("table", part), ...order[part.id]);
      if (filters[part.id]) {
        one("input", part).value = filters[part.id];
        filter(part);
      }
    }
    for (const [id, look] of off) {
      const figure = document.getElementById(id);
      if (figure && one(`.key[data-look="${look}"]`, figure)) hide(figure, look, true);
    }
    try { sessionStorage.removeItem(place); } catch { /* nothing was kept */ }
    history.scrollRestoration = "manual";
    scrollTo(0, y);
  }

  // Where in the page the reader is.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of all("main > section")) seen.observe(section);
  follow();
})();
