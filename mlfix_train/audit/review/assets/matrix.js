// The labels and the confusion matrix: where suspicion is. A cell or a label opens its images; only labels that hold
// suspicion have rows and columns.

import { el, formatCount, formatEstimate, plural, replaceChildren } from "./elements.js";

const MAX_AXIS = 18; // labels in a row or column of the matrix
const MAX_LABELS = 500; // labels in the list
const AXES = "Rows: the given label. Columns: the label that the audit suggests.";
const COLUMNS = [
  ["given", "label"],
  ["count", "images"],
  ["suspicion", "suspicion"],
  ["reviewed", "looked at"],
  ["marked", "marked"],
];

export function addMatrix(page) {
  const dialog = el("dialog.matrix", { "aria-label": "labels and confusion matrix" }),
    readout = el("p.readout", { "aria-hidden": "true" }),
    list = el("div.label-list");
  let found = null,
    sortedBy = "suspicion",
    search = "";
  page.app.append(dialog);
  dialog.addEventListener("keydown", (e) => e.stopPropagation());
  dialog.addEventListener("click", (e) => {
    if (e.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => page.scroller.focus({ preventScroll: true }));

  async function showMatrix() {
    try {
      found = await page.request("confusion");
    } catch (error) {
      page.showToast(error.message, "warn");
      return;
    }
    search = "";
    dialog.replaceChildren(
      el("button.close", { text: "×", "aria-label": "close", on: { click: () => dialog.close() } }),
      el("h2", page.session.audited ? "Where suspicion is" : "Labels"),
      el("p.quiet", explanation()),
      el("div.both", page.session.audited && matrix(), labelList()),
    );
    drawLabels();
    dialog.showModal();
    dialog.querySelector("td button[tabindex='0']")?.focus();
  }
  function explanation() {
    if (!page.session.labeled) return "The images have no labels.";
    if (!page.session.audited) return "No audit was made, so only what was looked at and marked is known.";
    return found.is_count
      ? "The numbers are wrong labels expected: the chances that each is wrong, added up."
      : "The numbers are suspicion added up: 2.0 is two images at 100%, or four at 50%. How many labels are wrong is not known before some are judged.";
  }
  const open = (...group) => {
    dialog.close();
    page.showGroup(...group);
  };

  /** Returns the labels of the rows and of the columns: those of the pairs that hold most. */
  function axes(pairs) {
    const rows = new Map(),
      columns = new Map();
    const add = (map, code, held) => map.set(code, (map.get(code) || 0) + held),
      hasRoom = (map, code) => map.has(code) || map.size < MAX_AXIS;
    for (const { given, suggested, suspicion } of pairs) {
      if (given === suggested || !hasRoom(rows, given) || !hasRoom(columns, suggested)) continue;
      add(rows, given, suspicion);
      add(columns, suggested, suspicion);
    }
    const byHeld = (map) => [...map.keys()].sort((a, b) => map.get(b) - map.get(a)),
      given = byHeld(rows),
      place = (code) => (rows.has(code) ? given.indexOf(code) : Infinity);
    // As in the rows, so that a label meets itself on the diagonal.
    const suggested = byHeld(columns).sort((a, b) => (place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0));
    return [given, suggested];
  }
  function matrix() {
    const n = found.pairs.given.length,
      pairs = Array.from({ length: n }, (_, i) =>
        Object.fromEntries(Object.entries(found.pairs).map(([name, values]) => [name, values[i]])),
      ),
      [given, suggested] = axes(pairs),
      largest = Math.max(...pairs.filter((one) => one.given !== one.suggested).map((one) => one.suspicion), 0),
      cells = new Map(pairs.map((one) => [`${one.given}:${one.suggested}`, one]));
    if (!given.length) return el("p", "The audit suggests no other label for any image.");
    const shown = pairs.filter((one) => given.includes(one.given) && suggested.includes(one.suggested)).length,
      rest = n - shown + found.left_out[0];
    const table = el(
      "table",
      { "aria-label": AXES, on: { keydown: moveInTable } },
      el(
        "thead",
        {},
        el("tr", el("td"), ...suggested.map((code) => heading("col", code, 22))),
      ),
      el(
        "tbody",
        {},
        ...given.map((row) =>
          el(
            "tr",
            heading("row", row, 30),
            ...suggested.map((column) => cell(cells.get(`${row}:${column}`), largest)),
          ),
        ),
      ),
    );
    const strongest = pairs.find((one) => one.given !== one.suggested);
    table.rows[1 + given.indexOf(strongest.given)].cells[1 + suggested.indexOf(strongest.suggested)].firstChild.tabIndex = 0;
    return el(
      "div.confusion",
      el("p.quiet", AXES),
      el("div.scrolled", table),
      readout,
      rest > 0 &&
        el(
          "p.quiet",
          `${plural(rest, "pair")} that ${rest === 1 ? "holds" : "hold"} less ${rest === 1 ? "is" : "are"} not in the matrix. `,
          el("button.plain", { text: "Show all pairs as groups", on: { click: () => open("suggested") } }),
        ),
    );
  }
  function cell(one, largest) {
    if (!one) return el("td");
    const agrees = one.given === one.suggested,
      pair = agrees
        ? `${page.labelOf(one.given)}, as the audit suggests`
        : `${page.labelOf(one.given)} → ${page.labelOf(one.suggested)}`,
      facts = `${pair}: ${found.is_count ? "wrong expected" : "suspicion"} ${formatEstimate(one.suspicion)}, ${plural(one.count, "image")}, ${formatCount(one.reviewed)} looked at, ${formatCount(one.marked)} marked`,
      tell = () => (readout.textContent = facts),
      button = el("button", {
        text: formatEstimate(one.suspicion),
        className: `${agrees ? "agrees" : ""}${one.reviewed >= one.count ? " done" : ""}`,
        tabIndex: -1,
        "aria-label": facts,
        on: {
          click: () => open("suggested", one.given, one.suggested),
          focus: tell,
          pointerenter: tell,
        },
      });
    if (!agrees) button.style.setProperty("--held", `${Math.round(45 * Math.sqrt(one.suspicion / largest))}%`);
    return el("td", button);
  }
  /** Arrow keys go to the nearest cell in their direction. */
  function moveInTable(e) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key] || [0, 0];
    const from = e.target.closest("td");
    if (!from || (!dx && !dy)) return;
    e.preventDefault();
    const place = (td) => [td.cellIndex, td.parentNode.rowIndex],
      [x, y] = place(from);
    const ahead = [...e.currentTarget.querySelectorAll("td button")]
      .map((button) => {
        const [i, j] = place(button.parentNode);
        return { button, along: (i - x) * dx + (j - y) * dy, aside: Math.abs((i - x) * dy) + Math.abs((j - y) * dx) };
      })
      .filter((one) => one.along > 0 && (dy || !one.aside))
      .sort((a, b) => a.along - b.along || a.aside - b.aside);
    if (!ahead.length) return;
    e.target.tabIndex = -1;
    ahead[0].button.tabIndex = 0;
    ahead[0].button.focus();
  }
  /** A label, where it is long without a part before its end, by which labels differ. */
  function heading(scope, code, length) {
    const letters = Array.from(page.labelOf(code)),
      head = Math.floor(length / 3),
      tail = length - head - 1;
    const text = letters.length <= length ? letters : [...letters.slice(0, head), "…", ...letters.slice(-tail)];
    return el("th", { scope, title: page.labelOf(code) }, text.join(""));
  }

  function labelList() {
    const find = el("input", {
      type: "search",
      placeholder: `Find a label (${formatCount(found.labels.given.length)})`,
      "aria-label": "Find a label",
      on: {
        input: () => {
          search = find.value.toLowerCase();
          drawLabels();
        },
      },
    });
    return el("div.labels-of", find, list);
  }
  function drawLabels() {
    const { labels } = found,
      value = (i) => (sortedBy === "given" ? page.labelOf(labels.given[i]) : labels[sortedBy][i]),
      columns = COLUMNS.filter(([name]) => name !== "suspicion" || page.session.audited),
      matches = [...labels.given.keys()].filter((i) => page.labelOf(labels.given[i]).toLowerCase().includes(search)),
      sorted = matches.sort((a, b) =>
        sortedBy === "given" ? value(a).localeCompare(value(b), "en", { numeric: true }) : value(b) - value(a),
      );
    const heading = ([name, text]) =>
      el(
        "th",
        { scope: "col", "aria-sort": name !== sortedBy ? "none" : name === "given" ? "ascending" : "descending" },
        el("button", {
          text: `${name === "suspicion" && found.is_count ? "wrong expected" : text}${name === sortedBy ? (name === "given" ? " ↑" : " ↓") : ""}`,
          on: {
            click: () => {
              sortedBy = name;
              drawLabels();
            },
          },
        }),
      );
    const line = (i) =>
      el(
        "tr",
        el(
          "th",
          { scope: "row" },
          el("button", { text: page.labelOf(labels.given[i]), on: { click: () => open("label", labels.given[i]) } }),
        ),
        ...columns.slice(1).map(([name]) => {
          const x = labels[name][i];
          if (name === "suspicion") return el("td", formatEstimate(x));
          if (name !== "reviewed") return el("td", x ? formatCount(x) : "–");
          return el("td", x >= labels.count[i] ? "all" : `${formatCount(x)} (${Math.floor((100 * x) / labels.count[i])}%)`);
        }),
      );
    const more = sorted.length - MAX_LABELS;
    replaceChildren(
      list,
      el(
        "table",
        el("thead", el("tr", ...columns.map(heading))),
        el("tbody", {}, ...sorted.slice(0, MAX_LABELS).map(line)),
      ),
      el("p.quiet", more > 0 ? `${formatCount(more)} more: type a part of the label.` : ""),
    );
  }

  Object.assign(page, { showMatrix });
}
