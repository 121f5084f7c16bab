// The audit page: reads the JSON and the sprite sheets in this file, and draws only what is in view. Labels and names
// only ever become text nodes.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const view = document.getElementById("view");
const sheets = new Array(data.sheets).fill(null);
const bright = document.getElementById("brighten");
bright.addEventListener("change", () => document.querySelectorAll(".pic").forEach((node) => { if (node.painted !== undefined) brighten(node); }));
bright.closest("label").hidden = !data.pictures;

function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [name, call] of Object.entries(value)) node.addEventListener(name, call);
    else if (key === "style") Object.assign(node.style, value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const whole = (x) => Math.round(x).toLocaleString("en");
const about = (x) => (x >= 10 ? whole(x) : x >= 0.05 ? x.toFixed(1) : "0");
const counted = data.estimates.wrong !== undefined;
const expectedText = counted ? "expected wrong" : "total suspicion";
const TAIL = 9; // characters at the end of a name that are never cut: labels of a family differ there
/** Text that is cut in the middle where it doesn't fit. */
function cut(text, className = "", title = text) {
  const letters = Array.from(text), n = letters.length > 2 * TAIL ? TAIL : Math.floor(letters.length / 2);
  return el("span", { className: `cut ${className}`.trim(), title }, el("span", { text: letters.slice(0, -n || undefined).join("") }), n ? el("span", { text: letters.slice(-n).join("") }) : null);
}
const label = (i) => (i < 0 ? "" : data.labels[i]);

function sheet(i) {
  if (!sheets[i]) {
    const bytes = Uint8Array.from(atob(document.getElementById("sheet" + i).textContent), (c) => c.charCodeAt(0));
    sheets[i] = URL.createObjectURL(new Blob([bytes], { type: data.type }));
  }
  return sheets[i];
}
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watch.unobserve(entry.target);
    paint(entry.target, entry.target.tile);
  }
}, { rootMargin: "400px" });
function paint(node, t) {
  const k = data.columns, place = t % (k * k), x = place % k, y = Math.floor(place / k);
  node.style.backgroundImage = `url(${sheet(Math.floor(t / (k * k)))})`;
  node.style.backgroundSize = `${100 * k}% ${100 * k}%`;
  node.painted = t;
  brighten(node);
  node.style.backgroundPosition = k > 1 ? `${(100 * x) / (k - 1)}% ${(100 * y) / (k - 1)}%` : "0 0";
}
function brighten(node) {
  const more = Math.min(4, Math.max(1, 105 / (data.brightness[node.painted] + 1)));
  node.style.filter = bright.checked && !node.asIs ? `brightness(${more.toFixed(2)})` : "";
}
function picture(t, asIs) {
  const node = el("span", { className: "pic" });
  node.asIs = asIs; // what is dark or bright must look so
  if (t < data.pictures) { node.tile = t; watch.observe(node); }
  return node;
}
function tile(t, caption) {
  const [, given, suggested, suspicion] = data.tiles[t];
  const other = suggested !== given && suggested >= 0;
  const words = `${data.tiles[t][0]}\ngiven: ${label(given)}` + (other ? `\nsuggested: ${label(suggested)}` : "");
  return el("button", { className: "tile", title: words, on: { click: () => enlarge(t) } },
    picture(t, Boolean(caption)),
    el("span", { className: "bar" }, el("i", { style: { width: `${100 * suspicion}%` } })),
    cut(label(given), "name", ""),
    caption ? el("span", { className: "score", text: caption }) : cut(other ? "→ " + label(suggested) : "", "sug", ""));
}
const tiles = (list, captions = []) => el("div", { className: "tiles" }, ...list.map((t, i) => tile(t, captions[i])));

function enlarge(t) {
  const row = data.tiles[t], dialog = document.getElementById("large");
  const facts = [["file", row[0]], ["given label", label(row[1])], ["suggested label", row[2] === row[1] ? "same as given" : label(row[2])],
    ["suspicion", row[3].toFixed(3)], ["rank", whole(row[4])]];
  data.scores.forEach((name, i) => { if (row[5 + i] !== null) facts.push([name.replaceAll("_", " "), String(row[5 + i])]); });
  const big = el("span", { className: "pic" });
  if (t < data.pictures) paint(big, t);
  dialog.replaceChildren(el("button", { className: "close", text: "×", title: "Close (Esc)", on: { click: () => dialog.close() } }), big, el("dl", {}, ...facts.flatMap(([k, v]) => [el("dt", { text: k }), el("dd", { text: v })])));
  dialog.showModal();
}

function fact(number, words) { return el("div", { className: "fact" }, el("b", { text: number }), el("span", { text: words })); }
function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function curve(reviewYield, total) {
  const w = 600, h = 250, left = 52, low = h - 34, steps = reviewYield.curve;
  const most = Math.max(...steps.map((s) => s[0]), 2), top = Math.max(total * 1.08, 1);
  const x = (n) => left + ((w - left - 16) * Math.log(n)) / Math.log(most), y = (v) => low - ((low - 10) * v) / top;
  const chart = svg("svg", { viewBox: `0 0 ${w} ${h}`, width: "100%", role: "img", "aria-label": "expected number of wrong labels by number of samples reviewed" });
  for (let n = 1; n <= most; n *= 10) {
    chart.append(svg("line", { x1: x(n), x2: x(n), y1: 8, y2: low, class: "axis" }), svg("text", { x: x(n), y: low + 17, "text-anchor": "middle" }, whole(n)));
  }
  for (const v of [0, 0.5, 1]) {
    chart.append(svg("line", { x1: left, x2: w - 16, y1: y(v * total), y2: y(v * total), class: "axis" }), svg("text", { x: left - 8, y: y(v * total) + 4, "text-anchor": "end" }, whole(v * total)));
  }
  chart.append(svg("path", { class: "line", d: "M" + steps.map((s) => `${x(s[0]).toFixed(1)},${y(s[1]).toFixed(1)}`).join("L") }));
  if (reviewYield.stop_rank > 1) {
    const left_of = x(reviewYield.stop_rank) > w * 0.7;
    chart.append(svg("line", { x1: x(reviewYield.stop_rank), x2: x(reviewYield.stop_rank), y1: 8, y2: low, class: "mark" }),
      svg("text", { x: x(reviewYield.stop_rank) + (left_of ? -6 : 6), y: low - 8, "text-anchor": left_of ? "end" : "start" }, `worth reviewing: ${whole(reviewYield.stop_rank)}`));
  }
  chart.append(svg("text", { x: (w + left) / 2, y: h - 2, "text-anchor": "middle" }, "samples reviewed, from the top of the ranking (log scale)"));
  return chart;
}

const sections = {
  Overview() {
    const a = data.about, e = data.estimates, nodes = [];
    const facts = [];
    if (e.wrong !== undefined) {
      facts.push(fact(`≈ ${whole(e.wrong)}`, `wrong labels (estimate); ${e.clear ? "95% interval" : "between"} ${whole(e.interval[0])} ${e.clear ? "to" : "and"} ${whole(e.interval[1])}; ${e.share.toFixed(1)}% of the ranked samples`),
        fact(whole(e.review_yield.stop_rank), `samples worth reviewing: ${about(e.review_yield.expected_found)} wrong labels expected among them, ${about(e.review_yield.expected_left)} beyond`));
    }
    facts.push(fact(whole(a.issues), counted ? "label issues: more likely wrong than right, with another label suggested" : "label issues: all predictions together leave the given label hardly a chance, and suggest another"),
      fact(whole(a.ranked), `of ${whole(a.samples)} samples ranked, ${a.runs ? `by ${a.runs} run${a.runs > 1 ? "s" : ""} that held them out` : "out of fold, without training"}; ${a.labels} labels`));
    nodes.push(el("p", { className: "next", text: data.next }), el("div", { className: "facts" }, ...facts));
    for (const note of data.notes) nodes.push(el("div", { className: "note", text: note }));
    const faults = (a.faults || []).filter((f) => f.samples);
    if (faults.length) {
      const words = faults.map((f) => (f.score === "overlap" ? `${f.name} (may be one label)` : `${f.name} (${whole(f.samples)})`));
      nodes.push(el("p", {}, `Other faults: ${words.slice(0, 8).join(", ")}${words.length > 8 ? ", …" : ""}. `, el("a", { href: "#" + encodeURIComponent("Other faults"), text: "See them" })));
    }
    nodes.push(el("h2", { text: "Start here" }), el("p", { className: "quiet", text: "The most suspicious labels. Below each image: its suspicion (bar), the given label and, in blue, the suggested label." }),
      tiles(data.worst.slice(0, 40)));
    if (e.wrong !== undefined) {
      const top = Object.entries(e.labels).sort((p, q) => q[1].wrong - p[1].wrong).slice(0, 14).filter((p) => p[1].wrong >= 0.05);
      const most = Math.max(...top.map((p) => p[1].wrong), 1e-9);
      nodes.push(el("div", { className: "two" },
        el("div", {}, el("h2", { text: "What a review would find" }), el("p", { className: "quiet", text: "Expected number of wrong labels among the top samples of the ranking." }), curve(e.review_yield, e.wrong)),
        el("div", {}, el("h2", { text: "Wrong labels by given label" }), el("p", { className: "quiet", text: "Expected number of wrong labels, with its range." }),
          ...top.map(([name, row]) => el("div", { className: "hbar" }, cut(name),
            el("div", {}, el("i", { style: { width: `${(100 * row.wrong) / most}%` } })),
            el("span", { text: `${about(row.wrong)} (${about(row.interval[0])} to ${about(row.interval[1])})` }))))));
    }
    return nodes;
  },
  Worst() { return [el("h2", { text: "The most suspicious samples" }), ...paged(data.worst, 120, tiles)]; },
  Slices() {
    const kinds = { pair: "given and suggested label", label: "given label", slice: "your slices", duplicates: "near-duplicates", fault: "other faults" };
    const box = el("div"), search = el("input", { type: "search", placeholder: "Search names", "aria-label": "Search names" });
    const pick = el("select", { "aria-label": "Kind of slice" }, el("option", { value: "", text: "all kinds" }),
      ...Object.keys(kinds).filter((k) => data.slices.some((s) => s.kind === k)).map((k) => el("option", { value: k, text: "by " + kinds[k] })));
    const show = () => {
      const words = search.value.toLowerCase();
      const list = data.slices.filter((s) => (!pick.value || s.kind === pick.value) && s.name.toLowerCase().includes(words));
      box.replaceChildren(...(list.length ? paged(list, 20, (part) => el("div", {}, ...part.map(strip))) : [el("p", { className: "quiet", text: "No slice matches." })]));
    };
    pick.value = data.slices.some((s) => s.kind === "pair") ? "pair" : "";
    search.addEventListener("input", show); pick.addEventListener("change", show); show();
    return [el("h2", { text: "Slices" }), el("p", { className: "quiet", text: "Groups of samples that can be checked at a glance, sorted by the suspicion on their first screen." }), el("div", { className: "bars" }, pick, search), box];
  },
  Confusion() {
    const m = data.matrix, box = el("div");
    if (!m.labels.length) return [el("p", { text: "No label is suspected to be another one." })];
    const most = Math.max(...m.cells.map((c) => c[2]));
    const lookup = new Map(m.cells.filter((c) => c[2] >= 0.05).map((c) => [`${c[0]},${c[1]}`, c]));
    const show = (cell, td) => {
      table.querySelectorAll(".chosen").forEach((n) => n.classList.remove("chosen"));
      td.classList.add("chosen");
      const s = data.slices[cell[3]];
      box.replaceChildren(s ? strip(s) : el("p", { className: "quiet", text: "This page has no images for this cell; its samples are in ranking.csv." }));
    };
    const body = m.labels.map((given, i) => el("tr", {}, el("th", {}, cut(label(given))), ...m.labels.map((other, j) => {
      const cell = lookup.get(`${i},${j}`);
      if (i === j) return el("td", { className: "own" });
      if (!cell) return el("td");
      const td = el("td", { className: "hit", tabIndex: 0, text: cell[2] >= 0.5 ? whole(cell[2]) : "", title: `given ${label(given)}, suggested ${label(other)}: ${about(cell[2])} ${expectedText}` });
      td.style.background = `color-mix(in srgb, var(--vermillion) ${Math.round(8 + 72 * Math.sqrt(cell[2] / most))}%, transparent)`;
      td.addEventListener("click", () => show(cell, td));
      td.addEventListener("keydown", (event) => { if (event.key === "Enter") show(cell, td); });
      return td;
    })));
    const table = el("table", { className: "matrix" }, el("thead", {}, el("tr", {}, el("th"), ...m.labels.map((i) => el("th", {}, el("div", { text: label(i).length > 24 ? label(i).slice(0, 11) + "…" + label(i).slice(-12) : label(i), title: label(i) }))))), el("tbody", {}, ...body));
    return [el("h2", { text: "Given (rows) and suggested (columns)" }), el("p", { className: "quiet", text: `${counted ? "Expected number of wrong labels" : "Total suspicion"}, for ${m.labels.length < data.table.length ? `the ${m.labels.length} of ${data.table.length} labels that have the most` : "all labels"}. Click a cell to see its images.` }), el("div", { className: "scroll" }, table), box];
  },
  Labels() {
    const search = el("input", { type: "search", placeholder: "Search labels", "aria-label": "Search labels" }), body = el("tbody");
    const none = el("p", { className: "quiet", text: "No label matches." });
    const head = ["label", "samples", expectedText, counted && data.estimates.clear ? "95% interval" : "range", "label issues", "predicted differently"];
    const show = () => {
      const words = search.value.toLowerCase();
      const found = data.table.filter((r) => label(r[0]).toLowerCase().includes(words));
      none.hidden = found.length > 0;
      body.replaceChildren(...found.map((r) => {
        const row = el("tr", { tabIndex: 0 }, el("td", {}, cut(label(r[0]))), el("td", { text: whole(r[1]) }), el("td", { text: about(r[2]) }),
          el("td", { text: r[3] ? `${about(r[3][0])} to ${about(r[3][1])}` : "" }), el("td", { text: whole(r[4]) }), el("td", { text: `${(100 * r[5]).toFixed(1)}%` }));
        const open = () => {
          if (row.nextSibling && row.nextSibling.classList.contains("inside")) { row.nextSibling.remove(); row.classList.remove("open"); return; }
          row.classList.add("open");
          row.after(el("tr", { className: "inside" }, el("td", { colSpan: head.length }, el("p", { className: "quiet", text: "Most suspicious" }), tiles(r[6]),
            r[7].length ? el("p", { className: "quiet", text: "Most typical" }) : null, r[7].length ? tiles(r[7]) : null)));
        };
        row.addEventListener("click", open);
        row.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
        return row;
      }));
    };
    search.addEventListener("input", show); show();
    return [el("h2", { text: "Labels" }), el("p", { className: "quiet", text: "Click a label for its most suspicious and its most typical images." }), el("div", { className: "bars" }, search), none,
      el("div", { className: "scroll" }, el("table", { className: "list" }, el("thead", {}, el("tr", {}, ...head.map((h) => el("th", { text: h })))), body))];
  },
  "Near-duplicates"() {
    const groups = data.slices.filter((s) => s.kind === "duplicates");
    if (!groups.length) return [el("h2", { text: "Near-duplicates with different labels" }), el("p", { text: data.sorted ? "There are none: near-duplicates found by mlfix sort always have the same label." : "Set order=<output folder of mlfix sort> to see near-duplicates with different labels." })];
    return [el("h2", { text: "Near-duplicates with different labels" }), ...paged(groups, 30, (part) => el("div", {}, ...part.map(strip)))];
  },
  "Other faults"() {
    const faults = data.about.faults || [], nodes = [el("h2", { text: "Other faults" }), el("p", { className: "quiet", text: "They are not evidence against a label. An image counts if its score is bad in itself and unusual in this data set; the worst come first." })];
    if (!data.pictures) nodes.push(el("p", { text: "Without images, dark, bright, blurred, nearly empty and odd-shaped ones are not looked for." }));
    for (const f of faults.filter((one) => one.samples)) {
      const s = data.slices.find((one) => one.kind === "fault" && one.fault === f.name);
      const pair = f.score === "overlap", captions = pair || !s ? [] : s.values.map((v) => `${f.score} ${v.toPrecision(3)}`);
      const count = `${whole(f.samples)} of ${whole(f.checked)} samples, ${f.score} from ${f.threshold.toPrecision(3)}` + (pair ? `, here ${f.worst.toPrecision(3)}` : "");
      nodes.push(el("div", { className: "strip" }, el("h3", {}, el("span", { text: pair ? `${f.name}: may be one label` : f.name[0].toUpperCase() + f.name.slice(1) }), el("small", { text: count + (s && s.tiles.length < s.samples ? `; first ${s.tiles.length} shown` : "") })),
        el("p", { className: "quiet", text: f.description }), s ? tiles(s.tiles, captions) : null));
    }
    const none = faults.filter((one) => !one.samples).map((f) => `${f.name} (${f.score} from ${f.threshold.toPrecision(3)})`);
    if (none.length) nodes.push(el("p", { className: "quiet", text: `Looked for and not found: ${none.join(", ")}.` }));
    return nodes;
  },
  Method() {
    return [document.getElementById("method").content.cloneNode(true)];
  },
};
function strip(s) {
  const count = `${whole(s.samples)} sample${s.samples === 1 ? "" : "s"}, ${about(s.expected)} ${expectedText}`;
  return el("div", { className: "strip" }, el("h3", {}, el("span", { text: s.name, title: s.name }), el("small", { text: count + (s.tiles.length < s.samples ? `; first ${s.tiles.length} shown` : "") })), tiles(s.tiles));
}
function paged(list, size, draw) {
  const box = el("div"), button = el("button", { className: "more" });
  let done = 0;
  const more = () => {
    box.append(draw(list.slice(done, done + size)));
    done = Math.min(done + size, list.length);
    button.textContent = `Show more (${whole(list.length - done)} left)`;
    button.hidden = done >= list.length;
  };
  button.addEventListener("click", more);
  more();
  return [box, button];
}
const nav = document.querySelector("nav");
function open(name) {
  for (const button of nav.querySelectorAll("button")) button.setAttribute("aria-selected", button.textContent === name);
  view.replaceChildren(...sections[name]());
  scrollTo(0, 0);
}
for (const name of Object.keys(sections).reverse()) nav.prepend(el("button", { type: "button", text: name, role: "tab", on: { click: () => { location.hash = encodeURIComponent(name); } } }));
function wanted() {
  const name = Object.keys(sections).find((one) => "#" + encodeURIComponent(one) === location.hash || "#" + one === location.hash);
  return name || "Overview";
}
addEventListener("hashchange", () => open(wanted()));
document.getElementById("large").addEventListener("click", (event) => {
  if (event.target === event.currentTarget) event.currentTarget.close(); // outside the box; its text can be selected
});
open(wanted());
