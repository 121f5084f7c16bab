// The review's page, for a browser and as an anywidget: groups under sticky headings, tiles on canvas strips that the
// browser scrolls by itself, marks that count as saved when the other side says that they are on disk.
// Labels and names only ever become text.

const NONE = -1, OUT = -2, STRIP = 512, HEAD = 44, REFS = 56, SIDE_ROW = 46, BITMAPS = 72e6, BLOCKS = 80, LOOK = 5; // ticks of 400 ms on the screen that make a look
const LONGEST = globalThis.CSS?.supports?.("-moz-appearance:none") ? 16e6 : 30e6;

function el(name, options, ...children) {
  const [tag, ...classes] = name.split("."), node = document.createElement(tag);
  if (typeof options !== "object" || options instanceof Node) { children.unshift(options); options = {}; }
  node.className = classes.join(" ");
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [name, call] of Object.entries(value)) node.addEventListener(name, call);
    else if (key === "style") Object.assign(node.style, value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const whole = (x) => Math.round(x).toLocaleString("en");
const about = (x) => (x >= 10 ? whole(x) : x >= 0.05 ? x.toFixed(1) : "0");
const mine = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`; // this window
let pushed = 0;
const several = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

/** Over HTTP: JSON by POST, pictures by GET. */
function httpLink() {
  return {
    async ask(kind, asked) {
      const reply = await fetch(`/api/${kind}`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked), signal: AbortSignal.timeout(30000),
      });
      const json = (reply.headers.get("content-type") || "").includes("json");
      return { status: reply.status, told: json ? await reply.json() : { error: (await reply.text()).trim() } };
    },
    async picture(kind, name) {
      const reply = await fetch(`/${kind}/${name}.jpg`, { signal: AbortSignal.timeout(30000) });
      if (!reply.ok) throw new Error(String(reply.status));
      return reply.blob();
    },
    close() {},
  };
}

/** Through a notebook's kernel: numbered messages, pictures as buffers. */
function widgetLink(model) {
  const waiting = new Map();
  let last = 0;
  const link = Math.random().toString(36).slice(2);
  const heard = (message, buffers) => {
    const wait = waiting.get(message?.id);
    if (!wait) return;
    waiting.delete(message.id);
    wait({ status: message.status, told: message.told, buffers });
  };
  model.on("msg:custom", heard);
  const send = (kind, asked) => new Promise((resolve, reject) => {
    const id = `${link}-${last++}`;
    waiting.set(id, resolve);
    setTimeout(() => waiting.delete(id) && reject(new Error("the kernel does not answer")), 60000);
    model.send({ id, kind, asked });
  });
  return {
    kernel: true,
    ask: send,
    async picture(kind, name) {
      const { status, buffers } = await send(kind, { name });
      if (status !== 200) throw new Error(String(status));
      return new Blob([buffers[0]], { type: "image/jpeg" });
    },
    close() { model.off("msg:custom", heard); },
  };
}

const KEYS = [
  ["click, tap", "mark with the brush, or take the mark back"], ["drag", "paint over many"], ["Shift + click", "from the last tile to this one"],
  ["← ↑ → ↓", "go from tile to tile; with Shift, choose several"], ["Ctrl + click, Ctrl + A", "choose a tile, the whole group"], ["X, Delete", "mark as invalid (take the sample out)"],
  ["Enter", "take the suggested label"], ["1 … 9", "give the label on offer"], ["L", "give any other label"], ["U, Backspace", "take the mark back"],
  ["Z, Y", "undo, redo (Ctrl + Z, Ctrl + Shift + Z)"], ["F", "the group looks fine: on to the next"], ["N, P", "next group, previous group"],
  ["Space", "look closer: the picture itself, all scores"], ["Home, End", "first and last tile of the group"], ["Page ↑ ↓", "scroll"], ["+ −", "larger, smaller tiles"],
  ["S or /, G", "search samples, find a group"], ["R", "typical images of the label, on and off"], ["B", "brighten dark pictures, on and off"], ["Esc", "choose nothing, close"], ["?", "these keys"],
];

/** Builds the page in `root`; returns what takes it down again. */
export function start(root, link, options = {}) {
  let hello = null, view = null, asking = 0, closed = false;
  const set = { by: "label", within: "suspicion", groups: "suspicion", show: "all", search: "", size: 72, bright: true, refs: true, theme: "auto" };
  const blocks = new Map(), bitmaps = new Map(), where = new Map(), strips = new Map(), sections = new Map();
  const loading = new Set(), offers = new Map(), recent = [], truncated = new Map();
  let bitmapBytes = 0, layout = null, current = NONE, anchor = NONE, chosen = new Set(), brush = OUT, painting = null, marksKnown = 0;
  let queue = [], sending = false, problem = "", conflicts = [], steps = [0, 0], lastProgress = null, ink = {}, seenTick = new Map();
  const seenWaiting = [], randomWaiting = [], passing = new Map();
  const timers = new Set();
  const later = (call, ms) => { const id = setTimeout(() => { timers.delete(id); if (!closed) call(); }, ms); timers.add(id); return id; };

  // --- the frame -----------------------------------------------------------------------------------------------
  const pick = (name, label, entries) => el("label.pick", el("span", label),
    el("select", { "aria-label": label, on: { change: (e) => { set[name] = e.target.value; e.target.blur(); open(); } } }, ...entries.map(([value, text]) => el("option", { value, text, selected: set[name] === value }))));
  const bar = el("div.bar");
  const side = el("aside.side");
  const content = el("div.content");
  const cursor = el("div.cursor", { hidden: true });
  const scroller = el("main.scroller", { tabIndex: 0, "aria-label": "images; arrow keys move, ? shows all keys" }, content);
  const empty = el("div.empty", { hidden: true });
  const inspector = el("div.inspector", { hidden: true });
  const brushes = el("div.brushes", { role: "toolbar", "aria-label": "labels on offer" });
  const foot = el("div.foot");
  const saved = el("span.saved", { role: "status" });
  const tray = el("div.tray", { hidden: true, role: "alert" });
  const toasts = el("div.toasts"), live = el("div.live", { "aria-live": "polite" });
  const box = el("dialog.box"), help = el("dialog.help");
  const app = el("div.mlfix", { tabIndex: -1, "data-lm-suppress-shortcuts": "true" }, bar, el("div.middle", side, el("div.stage", scroller, empty, inspector, toasts)), tray, foot, live, box, help);
  foot.append(brushes, saved);
  root.replaceChildren(app);
  if (options.height) app.style.height = `${options.height}px`;

  function store(name, value) {
    try {
      if (value === undefined) return JSON.parse(localStorage.getItem(`mlfix-review:${hello.id}:${name}`) || "null");
      if (value === null) localStorage.removeItem(`mlfix-review:${hello.id}:${name}`);
      else localStorage.setItem(`mlfix-review:${hello.id}:${name}`, JSON.stringify(value));
    } catch { /* a browser that keeps nothing still reviews */ }
    return null;
  }
  const labelOf = (code) => (code === OUT ? "invalid" : code < 0 ? "" : hello.labels[code]);

  async function ask(kind, asked = {}) {
    const { status, told } = await link.ask(kind, { reviewer: set.reviewer, ...asked });
    if (status === 403) throw Object.assign(new Error("The server was started anew: open the link that it printed last."), { status });
    if (status >= 400 && status !== 409) throw Object.assign(new Error([told.error, told.remedy].filter(Boolean).join(": ")), { status });
    return told;
  }
  function say(words, kind = "") {
    const toast = el("div", { className: `toast ${kind}`, text: words, role: "status" });
    toasts.append(toast);
    later(() => toast.remove(), kind ? 6000 : 2200);
  }

  // --- views and layout ----------------------------------------------------------------------------------------
  async function open(place) {
    const turn = ++asking;
    app.classList.add("busy");
    try {
      const { by, within, groups, show, search } = set;
      const told = await ask("view", { by, within, groups, show, search });
      if (turn !== asking) return;
      const same = view && view.view === told.view;
      view = { ...told, starts: [0] };
      for (const size of told.sizes) view.starts.push(view.starts.at(-1) + size);
      if (!same) { forget(); offers.clear(); current = anchor = NONE; chosen.clear(); }
      measure();
      sideCurrent = NONE;
      brushes.same = "";
      if (!same) point(NONE);
      scroller.scrollTop = 0;
      if (place) restore(place);
      drawSide();
      refresh();
      progressSoon(50);
    } catch (error) {
      if (error.status === 422 && !open.reset) { // a setting that means nothing here
        open.reset = true;
        Object.assign(set, { by: "label", within: hello.audited ? "suspicion" : "visual", groups: "suspicion", show: "all", search: "" });
        drawBar();
        later(() => open(), 0);
        return;
      }
      trouble(error);
      if (turn === asking) later(() => open(place), 2500);
    } finally { if (turn === asking) app.classList.remove("busy"); }
  }
  function forget() {
    passing.clear();
    seenTick = new Map();
    blocks.clear(); where.clear();
    for (const strip of strips.values()) strip.node.remove();
    for (const node of sections.values()) node.remove();
    strips.clear(); sections.clear();
  }
  const hasRefs = () => set.refs && (set.by === "label" || set.by === "pair") && hello.labelled;
  function measure() {
    const width = Math.max(scroller.clientWidth - 20, 120), size = set.size, gap = size < 56 ? 4 : 8, told = size >= 56;
    const lines = told ? (set.by === "label" || set.by === "pair" ? 1 : 2) : 0;
    const columns = Math.max(1, Math.floor((width + gap) / (size + gap)));
    const step = size + gap, rowStep = size + 5 + lines * 14 + gap, head = HEAD + (hasRefs() ? REFS : 0);
    const tops = [0];
    let shown = 0;
    for (const count of view.sizes) {
      const next = tops.at(-1) + head + Math.ceil(count / columns) * rowStep + 14;
      if (next > LONGEST) break;
      tops.push(next);
      shown++;
    }
    layout = { width, size, gap, lines, columns, step, rowStep, head, tops, shown, height: tops.at(-1) };
    for (const strip of strips.values()) strip.node.remove();
    for (const node of sections.values()) node.remove();
    strips.clear(); sections.clear(); truncated.clear();
    content.style.height = `${layout.height + Math.max(40, scroller.clientHeight - head - rowStep)}px`; // the last group can come to the top, too
    content.replaceChildren(cursor);
    if (shown < view.sizes.length) content.append(el("p.cut", { style: { top: `${layout.height}px` }, text: `${several(view.sizes.length - shown, "group")} more than one page can hold: search, filter, or make the tiles smaller.` }));
    empty.hidden = view.count > 0;
    empty.replaceChildren(el("p", { text: set.search ? `Nothing holds “${set.search}”.` : { marked: "Nothing is marked yet.", unmarked: "Everything is marked.", suspicious: "Nothing is suspicious.", unseen: "Everything has been seen." }[set.show] || "There is nothing here." }),
      el("button.plain", { text: "Show all", on: { click: () => { set.search = ""; set.show = "all"; drawBar(); open(); } } }));
    readInk();
  }
  function groupAt(y) {
    let low = 0, high = layout.shown - 1;
    while (low < high) { const mid = (low + high + 1) >> 1; if (layout.tops[mid] <= y) low = mid; else high = mid - 1; }
    return low;
  }
  function groupOf(index) {
    let low = 0, high = view.sizes.length - 1;
    while (low < high) { const mid = (low + high + 1) >> 1; if (view.starts[mid] <= index) low = mid; else high = mid - 1; }
    return low;
  }
  function rectOf(index) {
    const g = groupOf(index), i = index - view.starts[g];
    return { x: 10 + (i % layout.columns) * layout.step, y: layout.tops[g] + layout.head + Math.floor(i / layout.columns) * layout.rowStep, g };
  }
  function tileAt(x, y) {
    if (!layout.shown || y < 0 || y > layout.height) return NONE;
    const g = groupAt(y), row = Math.floor((y - layout.tops[g] - layout.head) / layout.rowStep), column = Math.floor((x - 10) / layout.step);
    if (row < 0 || column < 0 || column >= layout.columns) return NONE;
    if (x - 10 - column * layout.step > layout.size) return NONE;
    const i = row * layout.columns + column;
    return i < view.sizes[g] ? view.starts[g] + i : NONE;
  }
  function eachTile(top, bottom, call) {
    if (!layout.shown) return;
    for (let g = groupAt(Math.max(top, 0)); g < layout.shown && layout.tops[g] < bottom; g++) {
      const base = layout.tops[g] + layout.head, rows = Math.ceil(view.sizes[g] / layout.columns);
      const first = clamp(Math.floor((top - base) / layout.rowStep), 0, rows), last = clamp(Math.floor((bottom - base) / layout.rowStep), -1, rows - 1);
      for (let i = first * layout.columns; i < Math.min((last + 1) * layout.columns, view.sizes[g]); i++) {
        call(view.starts[g] + i, 10 + (i % layout.columns) * layout.step, base + Math.floor(i / layout.columns) * layout.rowStep);
      }
    }
  }

  // --- samples and pictures ------------------------------------------------------------------------------------
  function cell(index) {
    const block = blocks.get(Math.floor(index / hello.block));
    return block && !block.waits ? { block, i: index % hello.block } : null;
  }
  function large() { return hello.large[0] > hello.small[0] && layout.size * devicePixelRatio > hello.small[0] * 1.2; }
  function sheetOf(block, i) {
    if (!large()) return { name: block.small, side: hello.small[0], columns: hello.small[1], i };
    const per = hello.large[1] ** 2;
    return { name: block.large[Math.floor(i / per)], side: hello.large[0], columns: hello.large[1], i: i % per };
  }
  function bitmap(name) {
    const found = bitmaps.get(name);
    if (found) { bitmaps.delete(name); bitmaps.set(name, found); }
    return found;
  }
  let wanted = [];
  function want(key, call) { if (!loading.has(key) && !wanted.some((one) => one.key === key)) wanted.push({ key, call }); }
  function pump() {
    while (loading.size < 6 && wanted.length) {
      const { key, call } = wanted.shift();
      loading.add(key);
      call().catch((error) => { if (error.status === 410) open(placeNow()); else later(refresh, 1500); }).finally(() => { loading.delete(key); if (!closed) { pump(); refresh(); } });
    }
  }
  function wantBlock(number) {
    if (number < 0 || number * hello.block >= view.count || blocks.has(number)) return;
    const of = view.view;
    want(`${of}:${number}`, async () => {
      const told = await ask("block", { view: of, number, bright: set.bright });
      if (!view || view.view !== of) return;
      keep(number, told);
      if (current >= 0 && Math.floor(current / hello.block) === number) point(current);
    });
  }
  function keep(number, told) {
    blocks.set(number, told);
    told.rows.forEach((row, i) => where.set(row, number * hello.block + i));
    for (const item of queue) for (const one of item.marks || []) { const i = told.rows.indexOf(one.row); if (i >= 0) told.mark[i] = one.mark; }
    while (blocks.size > BLOCKS) {
      const [far] = [...blocks.keys()].sort((a, b) => Math.abs(b - number) - Math.abs(a - number));
      for (const row of blocks.get(far).rows) where.delete(row);
      blocks.delete(far);
    }
    dirtyBlock(number);
    refresh();
  }
  function wantSheet(name) {
    if (!name || bitmaps.has(name)) return;
    want(name, async () => {
      const picture = await createImageBitmap(await link.picture("sprites", name));
      if (closed) { picture.close(); return; }
      bitmaps.set(name, picture);
      bitmapBytes += picture.width * picture.height * 4;
      for (const [old, one] of bitmaps) {
        if (bitmapBytes <= BITMAPS || old === name) break;
        bitmaps.delete(old);
        bitmapBytes -= one.width * one.height * 4;
        one.close();
      }
      for (const strip of strips.values()) if (strip.lacks.has(name)) strip.dirty = true;
      for (const node of sections.values()) if (node.lacks?.has(name)) drawRefs(node);
      if (box.open) fillBox();
      if (!inspector.hidden) inspect();
    });
  }
  function dirtyBlock(number) {
    for (const strip of strips.values()) if (strip.lacks.has(number)) strip.dirty = true;
  }

  // --- drawing -------------------------------------------------------------------------------------------------
  function readInk() {
    const style = getComputedStyle(app), value = (name) => style.getPropertyValue(name).trim();
    ink = Object.fromEntries(["ink", "grey", "mat", "ground", "blue", "red", "track", "card", "green"].map((name) => [name, value(`--${name}`)]));
    ink.font = `11px ${style.fontFamily}`;
    ink.bold = `600 11px ${style.fontFamily}`;
  }
  function fitted(pen, text, width) {
    const key = `${width}|${pen.font}|${text}`;
    let found = truncated.get(key);
    if (found === undefined) {
      found = text;
      if (pen.measureText(text).width > width) {
        const rest = text.replace(/^…/, ""), cut = (n) => (n < 6 ? `…${rest.slice(-n)}` : `${rest.slice(0, Math.floor(n / 3))}…${rest.slice(-Math.ceil((2 * n) / 3))}`);
        let low = 0, high = rest.length - 1; // beginning and end: what differs stands there
        while (low < high) { const mid = (low + high + 1) >> 1; if (pen.measureText(cut(mid)).width <= width) low = mid; else high = mid - 1; }
        found = low > 0 ? cut(low) : "";
      }
      if (truncated.size > 8000) truncated.clear();
      truncated.set(key, found);
    }
    return found;
  }
  function nameOf(g) {
    const given = view.given[g], other = view.other[g];
    return other >= 0 && given >= 0 && other !== given ? `${labelOf(given)} → ${brief(other, given)}` : view.names[g];
  }
  /** What of a label another one doesn't say already: "…30" beside "speed-limit-80". */
  function brief(code, beside) {
    const name = labelOf(code), other = labelOf(beside);
    let n = 0;
    while (n < name.length && name[n] === other[n]) n++;
    while (n > 0 && !/[\s_./-]/.test(name[n - 1])) n--;
    return n > 3 ? `…${name.slice(n)}` : name;
  }
  function drawTile(pen, index, x, y, lacks) {
    const size = layout.size, at = cell(index);
    if (!at) {
      const number = Math.floor(index / hello.block);
      lacks.add(number);
      pen.fillStyle = ink.mat;
      pen.fillRect(x, y, size, size);
      return;
    }
    const { block, i } = at, sheet = sheetOf(block, i), picture = bitmap(sheet.name);
    const mark = block.mark[i], flags = block.flags[i];
    if (picture) pen.drawImage(picture, (sheet.i % sheet.columns) * sheet.side, Math.floor(sheet.i / sheet.columns) * sheet.side, sheet.side, sheet.side, x, y, size, size);
    else {
      lacks.add(sheet.name);
      const small = large() && bitmap(block.small);
      if (small) pen.drawImage(small, (i % hello.small[1]) * hello.small[0], Math.floor(i / hello.small[1]) * hello.small[0], hello.small[0], hello.small[0], x, y, size, size);
      else { pen.fillStyle = ink.mat; pen.fillRect(x, y, size, size); }
    }
    const suspicion = block.suspicion[i];
    if (suspicion !== null) {
      pen.fillStyle = ink.track;
      pen.fillRect(x, y + size + 1, size, 3);
      pen.fillStyle = ink.red;
      pen.fillRect(x, y + size + 1, size * suspicion, 3);
    }
    if (chosen.has(index)) { pen.strokeStyle = ink.blue; pen.lineWidth = 2; pen.setLineDash([4, 3]); pen.strokeRect(x - 2, y - 2, size + 4, size + 4); pen.setLineDash([]); }
    if (mark !== NONE) {
      const colour = mark === OUT ? ink.red : ink.blue, edge = clamp(size / 28, 2, 4), badge = clamp(size / 3.4, 13, 26);
      if (mark === OUT) { pen.fillStyle = ink.ground; pen.globalAlpha = 0.5; pen.fillRect(x, y, size, size); pen.globalAlpha = 1; }
      pen.strokeStyle = colour; pen.lineWidth = edge;
      pen.strokeRect(x + edge / 2, y + edge / 2, size - edge, size - edge);
      pen.fillStyle = colour;
      pen.fillRect(x + size - badge, y, badge, badge);
      pen.strokeStyle = ink.card; pen.lineWidth = Math.max(1.6, badge / 9);
      pen.beginPath();
      const a = x + size - badge * 0.7, b = x + size - badge * 0.3, c = y + badge * 0.3, d = y + badge * 0.7;
      if (mark === OUT) { pen.moveTo(a, c); pen.lineTo(b, d); pen.moveTo(b, c); pen.lineTo(a, d); }
      else { const m = y + badge / 2; pen.moveTo(a, m); pen.lineTo(b, m); pen.moveTo(b - badge * 0.17, m - badge * 0.17); pen.lineTo(b, m); pen.lineTo(b - badge * 0.17, m + badge * 0.17); }
      pen.stroke();
    } else if (flags & 2) {
      const r = clamp(size / 9, 5, 8), cx = x + size - r - 3, cy = y + size - r - 3;
      pen.fillStyle = ink.green; pen.beginPath(); pen.arc(cx, cy, r, 0, 7); pen.fill();
      pen.strokeStyle = ink.card; pen.lineWidth = 1.6; pen.beginPath(); pen.moveTo(cx - r * 0.45, cy); pen.lineTo(cx - r * 0.1, cy + r * 0.4); pen.lineTo(cx + r * 0.5, cy - r * 0.4); pen.stroke();
    }
    if (layout.lines) caption(pen, block, i, x, y + size + 15, mark);
  }
  function caption(pen, block, i, x, y, mark) {
    const width = layout.size, suspicion = block.suspicion[i], score = suspicion === null ? "" : suspicion >= 0.995 ? "1.00" : suspicion.toFixed(2);
    pen.font = ink.font;
    if (layout.lines === 2) { pen.fillStyle = ink.ink; pen.fillText(fitted(pen, labelOf(block.given[i]) || "(no label)", width), x, y); y += 14; }
    const room = score ? width - 27 : width;
    const other = block.predicted[i] >= 0 && block.predicted[i] !== block.given[i] ? brief(block.predicted[i], block.given[i]) : "";
    if (mark !== NONE) { pen.font = ink.bold; pen.fillStyle = mark === OUT ? ink.red : ink.blue; pen.fillText(fitted(pen, mark === OUT ? "invalid" : brief(mark, block.given[i]), room), x, y); pen.font = ink.font; }
    else if (other) { pen.fillStyle = ink.grey; pen.fillText(`→ ${fitted(pen, other, room - 13)}`, x, y); }
    if (score) { pen.fillStyle = ink.grey; pen.textAlign = "right"; pen.fillText(score, x + width, y); pen.textAlign = "left"; }
  }
  function drawStrip(k, strip) {
    const ratio = devicePixelRatio || 1, width = Math.round((layout.width + 20) * ratio), height = Math.round(STRIP * ratio);
    if (strip.node.width !== width || strip.node.height !== height) { strip.node.width = width; strip.node.height = height; }
    const pen = strip.pen, top = k * STRIP;
    strip.lacks.clear();
    strip.dirty = false;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, layout.width + 20, STRIP);
    pen.imageSmoothingQuality = "medium";
    eachTile(top - layout.rowStep, top + STRIP, (index, x, y) => drawTile(pen, index, x, y - top, strip.lacks));
  }
  function redraw(index) {
    const { x, y, g } = rectOf(index);
    if (g >= layout.shown) return;
    for (let k = Math.floor((y - 4) / STRIP); k <= Math.floor((y + layout.rowStep) / STRIP); k++) {
      const strip = strips.get(k);
      if (!strip || strip.dirty) continue;
      const pen = strip.pen;
      pen.clearRect(x - 3, y - 3 - k * STRIP, layout.size + 6, layout.rowStep - layout.gap + 3);
      drawTile(pen, index, x, y - k * STRIP, strip.lacks);
    }
  }
  let framed = false, lastTop = 0;
  function refresh() { if (!framed && !closed) { framed = true; requestAnimationFrame(frame); } }
  function frame() {
    framed = false;
    if (!view || closed) return;
    const top = scroller.scrollTop, height = scroller.clientHeight, began = performance.now(), down = top >= lastTop;
    lastTop = top;
    if (!height) return;
    const first = Math.floor(top / STRIP), last = Math.floor((top + height) / STRIP);
    const ahead = down ? [last + 1, first - 1] : [first - 1, last + 1];
    const keep = new Set();
    for (let k = first; k <= last; k++) keep.add(k);
    for (const k of ahead) if (k >= 0 && k * STRIP < layout.height) keep.add(k);
    for (const [k, strip] of strips) if (!keep.has(k)) { if (Math.abs(k - first) > 4 + last - first) { strip.node.remove(); strips.delete(k); } }
    wanted = [];
    let more = false, number = 0;
    for (const k of keep) {
      let strip = strips.get(k);
      if (!strip) {
        const node = el("canvas.strip", { style: { top: `${k * STRIP}px`, width: `${layout.width + 20}px`, height: `${STRIP}px` } });
        strip = { node, pen: node.getContext("2d"), lacks: new Set(), dirty: true };
        strips.set(k, strip);
        content.append(node);
      }
      if (strip.dirty) {
        if (number && performance.now() - began > 7) { more = true; continue; }
        drawStrip(k, strip);
        number++;
      }
      for (const lack of strip.lacks) if (typeof lack === "number") wantBlock(lack); else wantSheet(lack);
    }
    const next = down ? last + 2 : first - 2;
    eachTile(next * STRIP, next * STRIP + 1, (index) => wantBlock(Math.floor(index / hello.block)));
    drawHeads(top, height);
    pump();
    if (more) refresh();
    if (wanted.length) pump();
  }
  function drawHeads(top, height) {
    const shown = new Set();
    if (layout.shown) for (let g = groupAt(top); g < layout.shown && layout.tops[g] < top + height + 200; g++) shown.add(g);
    for (const [g, node] of sections) if (!shown.has(g)) { node.remove(); sections.delete(g); }
    for (const g of shown) if (!sections.has(g)) { const node = section(g); sections.set(g, node); content.append(node); }
    const now = layout.shown ? groupAt(top + layout.head) : NONE;
    if (now !== sideCurrent) { sideCurrent = now; drawSideRows(); revealSide(now); if (current < 0) drawBrushes(); }
  }
  function section(g) {
    const node = el("section", { style: { top: `${layout.tops[g]}px`, height: `${layout.tops[g + 1] - layout.tops[g]}px` } });
    const facts = el("small");
    const head = el("header", { style: { height: `${layout.head - 8}px` } },
      el("div.line", el("h2", { text: nameOf(g), title: view.names[g] }), facts,
        set.by === "random" && el("button.plain", { text: "Draw 200 more", on: { click: drawMore } }),
        el("button.plain.fine", { text: "Looks fine", title: "All that is not marked here is right: on to the next group (F)", on: { click: () => fine(g) } })));
    node.facts = facts;
    node.g = g;
    if (hasRefs()) {
      node.refs = [view.given[g], view.other[g]].filter((code, i, all) => code >= 0 && all.indexOf(code) === i);
      node.canvas = el("canvas.refs", { "aria-hidden": "true" });
      head.append(el("div.typical", el("span", { text: node.refs.length ? "typical" : "" }), node.canvas));
    }
    node.append(head);
    tellSection(node);
    drawRefs(node);
    return node;
  }
  function tellSection(node) {
    const g = node.g, parts = [several(view.sizes[g], "sample")];
    if (hello.calibrated && set.by !== "random") parts.push(`≈ ${about(view.expected[g])} wrong expected`);
    if (view.marked[g]) parts.push(`${whole(view.marked[g])} marked`);
    if (view.judged[g] >= view.sizes[g]) parts.push("all seen");
    else if (view.judged[g]) parts.push(`${whole(view.judged[g])} seen`);
    node.facts.textContent = parts.join(" · ");
  }
  function drawRefs(node) {
    if (!node.canvas) return;
    const [count] = hello.references, side = 44, ratio = devicePixelRatio || 1, gap = 4;
    const room = Math.max(1, Math.floor((layout.width - 80 - (node.refs.length - 1) * 150) / (side + gap) / Math.max(node.refs.length, 1)));
    const each = Math.min(count, room), width = Math.max(layout.width - 70, 60);
    node.canvas.width = width * ratio;
    node.canvas.height = side * ratio;
    node.canvas.style.width = `${width}px`;
    node.canvas.style.height = `${side}px`;
    const pen = node.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = ink.font;
    node.lacks = new Set();
    let x = 0;
    for (const code of node.refs) {
      if (node.refs.length > 1) { pen.fillStyle = ink.grey; const text = fitted(pen, labelOf(code), 120); pen.fillText(text, x, 26); x += Math.ceil(pen.measureText(text).width) + 8; }
      for (let i = 0; i < each && (hello.typical[code]?.[i] ?? -1) >= 0; i++) { drawTypical(pen, code, i, x, 0, side, node.lacks); x += side + gap; }
      x += 14;
    }
    for (const name of node.lacks) wantSheet(name);
  }
  function drawTypical(pen, code, i, x, y, side, lacks) {
    const [count, per, names] = hello.references, name = names[Math.floor(code / per)], picture = bitmap(name);
    if (!picture) { lacks.add(name); pen.fillStyle = ink.mat; pen.fillRect(x, y, side, side); return; }
    const s = hello.small[0];
    pen.drawImage(picture, i * s, (code % per) * s, s, s, x, y, side, side);
  }

  // --- the side: how it goes, and the groups -------------------------------------------------------------------
  let sideCurrent = NONE, sideFilter = "", sideShown = [];
  const card = el("div.card");
  const finder = el("input", { type: "search", placeholder: "Find a group", "aria-label": "Find a group", on: { input: () => { sideFilter = finder.value.toLowerCase(); drawSide(); }, keydown: (e) => {
    if (e.key === "Enter" && sideShown.length) { jump(sideShown[0]); scroller.focus(); }
  } } });
  const list = el("div.list", { role: "listbox", "aria-label": "groups", on: { scroll: () => drawSideRows() } }), listInner = el("div");
  list.append(listInner);
  side.append(card, finder, list);
  function drawSide() {
    sideShown = [];
    for (let g = 0; g < view.names.length; g++) if (!sideFilter || view.names[g].toLowerCase().includes(sideFilter)) sideShown.push(g);
    finder.placeholder = `Find one of ${several(view.names.length, "group")}`;
    listInner.style.height = `${sideShown.length * SIDE_ROW}px`;
    drawSideRows();
  }
  function drawSideRows() {
    if (!view) return;
    const first = Math.max(0, Math.floor(list.scrollTop / SIDE_ROW) - 3), last = Math.min(sideShown.length, first + Math.ceil(list.clientHeight / SIDE_ROW) + 8);
    const rows = [];
    for (let n = first; n < last; n++) {
      const g = sideShown[n], done = view.judged[g] >= view.sizes[g];
      rows.push(el("button", { className: `row${g === sideCurrent ? " now" : ""}${done ? " done" : ""}`, role: "option", "aria-selected": String(g === sideCurrent), style: { top: `${n * SIDE_ROW}px` }, title: view.names[g], on: { click: () => { jump(g); scroller.focus(); } } },
        el("span.name", nameOf(g)), el("span.count", { text: done ? "✓" : view.marked[g] ? `${whole(view.marked[g])} ✕` : "" }),
        el("span.meter", { title: `${whole(view.judged[g])} of ${whole(view.sizes[g])} seen` }, el("i", { style: { width: `${(100 * view.judged[g]) / view.sizes[g]}%` } })),
        el("span.count", { text: hello.audited && set.by !== "random" ? (view.expected[g] >= 0.05 ? `≈ ${about(view.expected[g])}` : "") : whole(view.sizes[g]), title: hello.calibrated ? "wrong labels expected" : "" })));
    }
    listInner.replaceChildren(...rows);
  }
  function revealSide(g) {
    const n = sideShown.indexOf(g);
    if (n < 0) return;
    if (n * SIDE_ROW < list.scrollTop || (n + 1) * SIDE_ROW > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, n * SIDE_ROW - list.clientHeight / 3);
  }
  function jump(g) {
    if (g < 0 || g >= layout.shown) return;
    scroller.scrollTop = layout.tops[g];
    current = anchor = NONE;
    point(NONE);
    refresh();
  }
  let progressTimer = null;
  function progressSoon(ms = 400) {
    if (progressTimer) return;
    progressTimer = later(async () => {
      progressTimer = null;
      let told;
      try { told = await ask("progress", { view: view?.view }); } catch { return; } // the queue tells of trouble
      lastProgress = told;
      if (told.judged && view && told.judged.length === view.sizes.length) { view.judged = told.judged; view.marked = told.marked_in; drawSideRows(); for (const node of sections.values()) tellSection(node); }
      drawCard();
    }, ms);
  }
  function drawCard() {
    const p = lastProgress;
    if (!p) return;
    const facts = [[whole(p.marked), "marked"], [p.precision === null ? "–" : `${p.precision < 10 ? p.precision.toFixed(1) : Math.round(p.precision)}%`, "of the seen"]];
    if (p.ahead !== null) facts.push([`≈ ${whole(p.ahead)}`, "wrong ahead"]);
    else facts.push([about(p.per_minute[1]), "marks a minute"]);
    const r = p.random, busy = p.cut[1] && p.cut[0] < p.cut[1];
    const who = el("input.who", { value: set.reviewer, "aria-label": "your name, in the fixes", title: "your name, in the fixes", maxLength: 80, spellcheck: false, on: { change: (e) => { rename(e.target); } } });
    const focused = document.activeElement?.className === "who";
    if (focused) return;
    card.replaceChildren(
      el("div.seen", el("b", whole(p.seen)), ` of ${whole(p.samples)} seen`),
      el("div.meter.wide", el("i", { style: { width: `${(100 * p.seen) / p.samples}%` } })),
      el("div.facts", ...facts.map(([number, words]) => el("div", {}, el("b", number), el("span", words)))),
      el("p", { className: p.pays === false ? "words enough" : "words", text: p.words }),
      el("p.pace", { text: `${whole(p.per_minute[0])} seen, ${about(p.per_minute[1])} marked a minute${busy ? ` · pictures ${Math.round((100 * p.cut[0]) / p.cut[1])}% ready` : ""}` }),
      r && r.rate !== null
        ? el("p.random", el("b", `${r.rate.toFixed(1)}% wrong`), ` (${r.interval[0].toFixed(1)} to ${r.interval[1].toFixed(1)}%): ${r.wrong} of ${r.judged} drawn at random`, r.judged < r.drawn ? `, ${r.drawn - r.judged} to go` : "")
        : el("p.random", r ? `A random sample of ${r.drawn} waits: look through it from the top.` : "How many are wrong in all? A random sample tells.", " "),
      el("button.plain", { text: set.by === "random" ? "Back to the groups" : r ? "Go on with it" : "Check a random sample", on: { click: () => { set.by = set.by === "random" ? set.before || "label" : ((set.before = set.by), "random"); drawBar(); open(); } } }),
      el("label.name", el("span", "reviewer"), who));
  }
  async function rename(field) {
    const before = set.reviewer;
    set.reviewer = field.value.trim() || hello.own;
    try { await ask("progress", {}); store("reviewer", { name: set.reviewer, instead: hello.own }); } catch (error) { if (error.status === 422) { say(error.message, "bad"); set.reviewer = before; } }
    field.value = set.reviewer;
    field.blur();
    changes();
    progressSoon(50);
  }
  async function drawMore() { try { await ask("draw", { count: 200 }); await open(placeNow()); } catch (error) { trouble(error); } }

  // --- the bar -------------------------------------------------------------------------------------------------
  function drawBar() {
    const by = [["label", "label"], ...(hello.audited ? [["pair", "label, prediction"]] : []), ["all", "no groups"], ...hello.columns.map((name) => [`column:${name}`, name]), ["random", "random sample"]];
    const within = [...(hello.audited ? [["suspicion", "suspicion"]] : []), ["visual", hello.sorted ? "similarity" : "file order"], ...(hello.audited && hello.sorted ? [["both", "suspicion + similarity"]] : [])];
    const search = el("input", { type: "search", placeholder: "Search names and labels", "aria-label": "Search names and labels", value: set.search, on: { keydown: (e) => { if (e.key === "Enter") e.target.blur(); }, change: (e) => { set.search = e.target.value; open(); } } });
    const size = el("input", { type: "range", min: 32, max: 224, step: 4, value: set.size, "aria-label": "size of the tiles", title: "size of the tiles (+ −)", on: { input: (e) => resize(+e.target.value), change: () => scroller.focus({ preventScroll: true }) } });
    bar.search = search;
    bar.size = size;
    const segments = [["all", "All"], ["marked", "Marked"], ["unmarked", "Unmarked"], ...(hello.audited ? [["suspicious", "Suspicious"]] : []), ["unseen", "Unseen"]];
    bar.replaceChildren(el("h1", { text: hello.title, title: hello.title }), pick("by", "Group by", by), pick("groups", "Groups", [["suspicion", hello.audited ? "richest first" : "as they come"], ["name", "by name"]]), pick("within", "Inside", within),
      el("div.segments", { role: "radiogroup", "aria-label": "Show" }, ...segments.map(([value, text]) => el("button", { text, role: "radio", "aria-checked": String(set.show === value), on: { click: () => { set.show = value; drawBar(); open(); } } }))),
      search, size, el("div.icons", icon("◐", "brighten dark pictures (B)", () => toggle("bright"), set.bright), icon("▤", "typical images of the label (R)", () => toggle("refs"), set.refs),
      icon({ auto: "◑", light: "☀", dark: "☾" }[set.theme], `colours: ${set.theme}`, () => { set.theme = { auto: "dark", dark: "light", light: "auto" }[set.theme]; theme(); drawBar(); }), icon("?", "keys (?)", showHelp)));
  }
  const icon = (text, title, call, on) => el("button", { className: `icon${on ? " on" : ""}`, text, title, "aria-label": title, ...(on === undefined ? {} : { "aria-pressed": String(!!on) }), on: { click: call } });
  function theme() {
    app.dataset.theme = set.theme;
    remember();
    readInk();
    for (const strip of strips.values()) strip.dirty = true;
    for (const node of sections.values()) drawRefs(node);
    refresh();
  }
  function resize(size) {
    const place = placeNow();
    set.size = clamp(size, 32, 224);
    bar.size.value = set.size;
    relayout(place);
  }
  function relayout(place = placeNow()) {
    if (!view) return;
    measure();
    restore(place);
    point(current);
    refresh();
  }
  async function toggle(name) {
    const place = placeNow();
    set[name] = !set[name];
    drawBar();
    if (name === "bright") {
      hello.references = (await ask("hello", { bright: set.bright })).references;
      blocks.clear(); where.clear();
    }
    relayout(place);
  }
  function placeNow() {
    if (!view || !layout?.shown) return null;
    const top = scroller.scrollTop, g = groupAt(top);
    let index = view.starts[g];
    eachTile(top + layout.head, top + layout.head + layout.rowStep, (i) => { if (index === view.starts[g] && top > layout.tops[g]) index = i; });
    return { view: view.view, index, name: view.names[g], head: top <= layout.tops[g] + 1 };
  }
  function restore(place) {
    if (!place || !layout.shown) return;
    let g = view.names.indexOf(place.name);
    if (place.view === view.view && place.index < view.count) {
      const at = rectOf(place.index);
      if (at.g < layout.shown) { scroller.scrollTop = place.head ? layout.tops[at.g] : at.y - layout.head; return; }
      g = at.g;
    }
    if (g >= 0 && g < layout.shown) scroller.scrollTop = layout.tops[g];
  }
  function remember() {
    if (!hello) return;
    const { by, within, groups, show, search, size, bright, refs, theme: colours } = set;
    const kept = { set: { by, within, groups, show, search, size, bright, refs, theme: colours }, place: placeNow() };
    const text = JSON.stringify(kept);
    if (text !== remember.last) { remember.last = text; ask("place", { place: kept }).catch(() => {}); }
  }

  // --- marking -------------------------------------------------------------------------------------------------
  function markOf(index) { const at = cell(index); return at ? at.block.mark[at.i] : NONE; }
  function apply(indices, mark) {
    const marks = [];
    for (const index of indices) {
      const at = cell(index);
      if (!at) continue;
      const { block, i } = at, wish = mark instanceof Map ? mark.get(index) : mark, code = wish === block.given[i] ? NONE : wish;
      if (block.mark[i] === code) continue;
      block.mark[i] = code;
      marks.push({ row: block.rows[i], sample_id: block.ids[i], mark: code, stamp: block.stamp[i] });
      redraw(index);
    }
    if (marks.length) push({ kind: "marks", marks });
    return marks.length;
  }
  function targets() { return chosen.size ? [...chosen].sort((a, b) => a - b) : current >= 0 ? [current] : []; }
  /** Fetches what is known of samples that were chosen without being looked at. */
  async function ensure(list) {
    const of = view.view, missing = [...new Set(list.filter((index) => !cell(index)).map((index) => Math.floor(index / hello.block)))];
    if (missing.length > BLOCKS - 20) { say(`${several(list.length, "image")} are too many at once: choose fewer.`, "bad"); return false; }
    try { for (const number of missing) if (!blocks.has(number)) keep(number, await ask("block", { view: of, number, bright: set.bright })); } catch (error) { say(error.message, "bad"); return false; }
    return view.view === of;
  }
  async function act(mark) {
    const list = targets();
    if (!list.length) { say("Point at an image first, or go to one with the arrow keys."); return; }
    if (!ready() || (list.some((index) => !cell(index)) && !(await ensure(list)))) return;
    const all = list.every((index) => markOf(index) === mark);
    apply(list, all ? NONE : mark);
    if (mark >= 0 && !all) note(mark);
    point(current);
  }
  async function suggest() {
    const list = targets(), pairs = [];
    if (!ready() || (list.some((index) => !cell(index)) && !(await ensure(list)))) return;
    for (const index of list) {
      const { block, i } = cell(index), other = [block.suggested[i], block.predicted[i]].find((code) => code >= 0 && code !== block.given[i]);
      if (other !== undefined) pairs.push([index, other]);
    }
    for (const [, code] of pairs.slice(0, 9)) note(code);
    const done = pairs.length && (apply(pairs.map(([index]) => index), new Map(pairs)) || 1);
    if (!done) say(list.length ? "Nothing else is suggested here. L gives any label." : "Point at an image first.");
    point(current);
  }
  function note(code) {
    const at = recent.indexOf(code);
    if (at >= 0) recent.splice(at, 1);
    recent.unshift(code);
    recent.length = Math.min(recent.length, 9);
  }
  async function fine(g = groupNow()) {
    if (!layout.shown) return;
    push({ kind: "fine", view: view.view, group: g });
    if (g + 1 < layout.shown) { jump(g + 1); say(`${view.names[g]}: fine. Next: ${view.names[g + 1]}`); } else say(`${view.names[g]}: fine. That was the last group.`);
  }
  function push(item) {
    queue.push({ ...item, key: `${mine}-${pushed++}` }); // a repeated request of one key changes nothing
    keepQueue();
    send();
  }
  function keepQueue() { store(`queue:${mine}`, queue.length ? queue : null); }
  function leftOver() {
    const found = [], start_ = `mlfix-review:${hello.id}:queue:`;
    try {
      for (const name of Object.keys(localStorage).filter((one) => one.startsWith(start_) && one !== start_ + mine)) {
        for (const item of JSON.parse(localStorage.getItem(name)) || []) if (item?.key && (item.kind !== "marks" || Array.isArray(item.marks))) found.push(item);
        localStorage.removeItem(name);
      }
    } catch { /* what can't be read was never promised */ }
    return found;
  }
  function waiting() { return queue.reduce((n, item) => n + (item.marks?.length || 1), 0); }
  async function send() {
    if (sending || closed) return;
    sending = true;
    tell();
    while (queue.length && !closed) {
      const item = queue[0];
      try {
        const asked = item.kind === "marks"
          ? { marks: item.marks.map((one) => ({ sample_id: one.sample_id, new_label: one.mark === NONE ? null : labelOf(one.mark), base: one.stamp })) }
          : { view: item.view, group: item.group };
        asked.key = item.key;
        const told = await ask(item.kind, asked);
        queue.shift();
        problem = "";
        took(told, item);
      } catch (error) {
        if (error.status && error.status < 500 && error.status !== 403) { queue.shift(); say(error.message, "bad"); if (item.kind === "marks") reload(item.marks.map((one) => one.row)); }
        else { problem = error.status ? error.message : `${link.kernel ? "The kernel" : "The server"} can't be reached.`; tell(); await new Promise((done) => later(done, 2000)); }
      }
      keepQueue();
    }
    sending = false;
    tell();
    progressSoon();
  }
  function took(told, item) {
    steps = told.steps;
    // What this page changed itself, the marks that wait behind it know of; what others changed, they don't.
    const theirs = new Set((told.conflicts || []).map((one) => one.row)), own = new Map();
    told.rows.forEach((row, n) => { if (!theirs.has(row)) own.set(row, told.stamp[n]); });
    for (const later_ of queue) for (const one of later_.marks || []) if (own.has(one.row)) one.stamp = own.get(one.row);
    update(told);
    if (told.conflicts?.length) {
      for (const one of told.conflicts) { conflicts = conflicts.filter((other) => other.row !== one.row); conflicts.push(one); }
      drawTray();
    }
    if (item.kind === "undo" || item.kind === "redo") {
      const n = told.saved || told.fine;
      say(told.words && !n ? told.words : `${item.kind === "undo" ? "Taken back" : "Done again"}: ${told.saved || !n ? several(n, "mark") : `${several(n, "image")} found fine`}`);
      const index = where.get(told.first);
      if (index !== undefined) { point(index); show(index); }
    }
  }
  function update(told) {
    const pending = new Set(queue.flatMap((item) => (item.marks || []).map((one) => one.row)));
    told.rows.forEach((row, n) => {
      const index = where.get(row), at = index === undefined ? null : cell(index);
      if (!at) return;
      at.block.flags[at.i] = told.flags[n];
      if (!pending.has(row)) { at.block.mark[at.i] = told.mark[n]; at.block.stamp[at.i] = told.stamp[n]; }
      redraw(index);
    });
  }
  async function reload(rows) {
    for (const row of rows) { const index = where.get(row); if (index !== undefined) blocks.delete(Math.floor(index / hello.block)); }
    for (const strip of strips.values()) strip.dirty = true;
    refresh();
  }
  function learn(told) { told.labels.forEach((name, i) => { hello.labels[told.labels_from + i] = name; }); }
  function tell() {
    const n = waiting();
    saved.className = `saved${problem ? " bad" : ""}`;
    saved.replaceChildren(problem ? `${problem} ${several(n, "change")} not saved; trying again.` : n ? "Saving…" : "All saved",
      el("button.plain", { text: "↶", title: "undo (Z)", "aria-label": "undo", disabled: !steps[0], on: { click: () => push({ kind: "undo" }) } }),
      el("button.plain", { text: "↷", title: "redo (Y)", "aria-label": "redo", disabled: !steps[1], on: { click: () => push({ kind: "redo" }) } }));
  }
  function trouble(error) { problem = error.message; tell(); }
  async function changes() {
    if (closed || document.hidden) return;
    try {
      const told = await ask("changes", { since: marksKnown, labels: hello.labels.length });
      learn(told);
      marksKnown = told.number; // only here: an answer to one's own mark lacks what others did before it
      if (told.rows.length || told.steps + "" !== steps + "") { steps = told.steps; update(told); tell(); progressSoon(); }
      if (problem && !queue.length) { problem = ""; tell(); }
    } catch (error) { if (error.status === 403 || !error.status) trouble(error.status ? error : new Error("The server can't be reached.")); }
  }
  function drawTray() {
    tray.hidden = !conflicts.length;
    if (!conflicts.length) return;
    const settle = (one, mine) => {
      conflicts = conflicts.filter((other) => other !== one);
      if (one.file && !mine) ask("keep", { rows: [one.row] }).catch(() => {});
      if (mine) { push({ kind: "marks", marks: [{ row: one.row, sample_id: one.sample_id, mark: one.wanted, stamp: one.stamp }] }); }
      drawTray();
    };
    const word = (code) => (code === NONE ? "no mark" : code === OUT ? "invalid" : labelOf(code));
    const filed = conflicts.some((one) => one.file);
    tray.replaceChildren(el("b", filed ? `${several(conflicts.length, "image")} marked otherwise in the fixes file` : `${several(conflicts.length, "image")} marked otherwise in the meantime`),
      el("div.conflicts", ...conflicts.slice(0, 50).map((one) => el("div.conflict",
        el("span.id", { text: one.sample_id, title: one.sample_id }), el("span", { text: `${one.by || "someone"}: ${word(one.mark)}${one.time ? ` (${one.time.slice(11, 16)})` : ""}` }),
        one.wanted === null ? null : el("span", `${one.file ? "the file" : "you"}: ${word(one.wanted)}`),
        el("button.plain", { text: one.file ? "Keep what is here" : "Keep theirs", on: { click: () => settle(one, false) } }),
        one.wanted === null ? null : el("button.plain", { text: one.file ? "Take the file's" : "Take mine", on: { click: () => settle(one, true) } })))),
      el("button.plain", { text: filed ? "Keep all that is here" : "Keep all of theirs", on: { click: () => { const rows = conflicts.filter((one) => one.file).map((one) => one.row); if (rows.length) ask("keep", { rows }).catch(() => {}); conflicts = []; drawTray(); } } }));
  }

  // --- pointing, choosing, offers ------------------------------------------------------------------------------
  function point(index) {
    current = index;
    cursor.hidden = index < 0 || !layout;
    if (cursor.hidden) { drawBrushes(); return; }
    const { x, y } = rectOf(index);
    Object.assign(cursor.style, { left: `${x}px`, top: `${y}px`, width: `${layout.size}px`, height: `${layout.size}px` });
    drawBrushes();
    const at = cell(index);
    if (at) {
      const { block, i } = at, other = block.predicted[i] >= 0 && block.predicted[i] !== block.given[i] ? `, predicted ${labelOf(block.predicted[i])}` : "";
      const words = `${block.ids[i]}: ${labelOf(block.given[i]) || "no label"}${other}${block.suspicion[i] === null ? "" : `, suspicion ${block.suspicion[i]}`}${block.mark[i] === NONE ? "" : `, marked ${labelOf(block.mark[i])}`}`;
      clearTimeout(point.said);
      point.said = later(() => { live.textContent = words; }, 250);
    }
    if (!inspector.hidden) inspect();
  }
  function show(index) {
    const { y } = rectOf(index), top = scroller.scrollTop, height = scroller.clientHeight;
    if (y < top + layout.head) scroller.scrollTop = y - layout.head - 4;
    else if (y + layout.rowStep > top + height) scroller.scrollTop = y + layout.rowStep - height + 4;
  }
  function choose(set_) {
    const before = chosen;
    chosen = set_;
    for (const index of new Set([...before, ...chosen])) if (before.has(index) !== chosen.has(index)) redraw(index);
  }
  function step(key, extend) {
    if (!layout.shown) return;
    let next;
    if (current < 0) { next = NONE; eachTile(scroller.scrollTop + layout.head, scroller.scrollTop + scroller.clientHeight, (index) => { if (next < 0) next = index; }); if (next < 0) next = 0; } else {
      const g = groupOf(current), i = current - view.starts[g], c = layout.columns, end = view.starts[layout.shown] - 1;
      if (key === "ArrowRight") next = current + 1;
      else if (key === "ArrowLeft") next = current - 1;
      else if (key === "Home") next = view.starts[g];
      else if (key === "End") next = view.starts[g + 1] - 1;
      else if (key === "ArrowDown") {
        const rows = Math.ceil(view.sizes[g] / c);
        if (Math.floor(i / c) < rows - 1) next = Math.min(current + c, view.starts[g + 1] - 1);
        else next = g + 1 < layout.shown ? view.starts[g + 1] + Math.min(i % c, view.sizes[g + 1] - 1) : current;
      } else if (i >= c) next = current - c;
      else if (g > 0) { const rows = Math.ceil(view.sizes[g - 1] / c); next = view.starts[g - 1] + Math.min((rows - 1) * c + (i % c), view.sizes[g - 1] - 1); } else next = current;
      next = clamp(next, 0, end);
    }
    if (extend) { if (anchor < 0) anchor = current < 0 ? next : current; choose(range(anchor, next)); } else { anchor = next; choose(new Set()); }
    hovering = false;
    point(next);
    show(next);
  }
  function range(a, b) { const found = new Set(); for (let i = Math.min(a, b); i <= Math.max(a, b) && found.size < 20000; i++) found.add(i); return found; }
  function groupNow() { return current >= 0 && inSight(current) ? groupOf(current) : layout?.shown ? groupAt(scroller.scrollTop + layout.head) : NONE; }
  function onOffer() {
    const found = [...(offers.get(groupNow()) || [])];
    for (const code of recent) if (!found.includes(code)) found.push(code);
    return found.slice(0, 9);
  }
  function drawBrushes() {
    if (!view || !layout) return;
    const g = groupNow();
    if (g >= 0 && !offers.has(g)) {
      offers.set(g, []);
      const of = view.view;
      ask("group", { view: of, group: g }).then((told) => { if (view.view === of) { offers.set(g, told.offers); drawBrushes(); } }).catch(() => offers.delete(g));
    }
    const chip = (code, key, text) => el("button", { className: `chip${brush === code ? " on" : ""}${code === OUT ? " out" : ""}`, "aria-pressed": String(brush === code), title: `${key}: mark what is pointed at; click here: paint with it`, on: { click: () => { brush = code; drawBrushes(); } } }, el("kbd", key), el("span", text));
    const other = el("button.chip", { title: "any other label (L)", on: { click: openBox } }, el("kbd", "L"), "other…");
    const nodes = [chip(OUT, "X", "invalid"), other, ...onOffer().map((code, n) => chip(code, String(n + 1), labelOf(code)))];
    if (brush >= 0 && !onOffer().includes(brush)) nodes.splice(2, 0, chip(brush, "·", labelOf(brush)));
    const same = nodes.map((node) => node.className + node.textContent).join("|");
    if (same !== brushes.same) { brushes.same = same; brushes.replaceChildren(...nodes); }
  }

  // --- dialogs -------------------------------------------------------------------------------------------------
  const boxInput = el("input", { type: "search", placeholder: "Label", "aria-label": "label", on: { input: () => fillBox(0) } }), boxList = el("div.labels", { role: "listbox" });
  let boxAt = 0, boxFound = [];
  box.append(el("p.quiet", "Give a label: type a part of it, Enter takes the first."), boxInput, boxList);
  box.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "ArrowDown" || e.key === "ArrowUp") { e.preventDefault(); fillBox(clamp(boxAt + (e.key === "ArrowDown" ? 1 : -1), 0, Math.max(boxFound.length - 1, 0))); }
    if (e.key === "Escape") { e.preventDefault(); box.close(); }
    if (e.key === "Enter") { e.preventDefault(); takeBox(boxFound[boxAt]); }
  });
  function openBox() { boxInput.value = ""; fillBox(0); box.showModal(); boxInput.focus(); }
  function fillBox(at = boxAt) {
    boxAt = at;
    const words = boxInput.value.toLowerCase().split(/\s+/).filter(Boolean);
    const score = (name) => (name.toLowerCase().startsWith(words[0] || "") ? 0 : 1);
    boxFound = hello.labels.map((name, code) => ({ name, code })).filter(({ name }) => words.every((word) => name.toLowerCase().includes(word))).sort((a, b) => score(a.name) - score(b.name) || a.name.localeCompare(b.name, "en", { numeric: true })).slice(0, 60);
    const fresh = boxInput.value.trim();
    if (hello.new_labels && fresh && !hello.labels.includes(fresh)) boxFound.push({ name: fresh, code: "new" });
    boxList.replaceChildren(...boxFound.map((one, n) => {
      const canvas = el("canvas", { width: 148, height: 36 }), lacks = new Set();
      if (one.code !== "new") for (let i = 0; i < 4 && (hello.typical[one.code]?.[i] ?? -1) >= 0; i++) drawTypical(canvas.getContext("2d"), one.code, i, i * 37, 0, 36, lacks);
      for (const name of lacks) wantSheet(name);
      return el("button", { className: n === boxAt ? "now" : "", role: "option", "aria-selected": String(n === boxAt), on: { click: () => takeBox(one) } }, el("span", { text: one.code === "new" ? `new label: ${one.name}` : one.name }), canvas);
    }));
    if (!boxFound.length) boxList.append(el("p.quiet", "No label holds that."));
    boxList.children[boxAt]?.scrollIntoView?.({ block: "nearest" });
    pump();
  }
  async function takeBox(one) {
    if (!one) return;
    box.close();
    let code = one.code;
    if (code === "new") {
      try { const told = await ask("label", { name: one.name, labels: hello.labels.length }); learn(told); code = told.code; } catch (error) { say(error.message, "bad"); return; }
    }
    note(code);
    if (targets().length) act(code);
    else { brush = code; drawBrushes(); say(`The brush gives ${labelOf(code)} now.`); }
    scroller.focus();
  }
  function showHelp() {
    help.replaceChildren(el("button.close", { text: "×", "aria-label": "close", on: { click: () => help.close() } }), el("h2", "Keys"), el("dl", {}, ...KEYS.flatMap(([key, words]) => [el("dt", key), el("dd", words)])),
      el("p.quiet", "Every mark is on disk before “All saved” is shown. On a touch screen: tap to mark, hold to look closer."));
    help.showModal();
  }
  help.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "?") help.close(); });
  for (const dialog of [box, help]) { dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); }); dialog.addEventListener("close", () => scroller.focus()); }
  function lighten(image) {
    const pen = el("canvas", { width: 16, height: 16 }).getContext("2d");
    pen.drawImage(image, 0, 0, 16, 16);
    const data = pen.getImageData(0, 0, 16, 16).data;
    let light = 1;
    for (let i = 0; i < data.length; i += 4) light += (data[i] + data[i + 1] + data[i + 2]) / 768;
    image.style.filter = set.bright && light < 105 ? `brightness(${Math.min(105 / light, 4)})` : "";
  }
  let inspected = NONE, pictureUrl = null;
  async function inspect() {
    const at = current >= 0 ? cell(current) : null;
    if (!at) { inspector.replaceChildren(el("p.quiet", "Point at an image.")); return; }
    const { block, i } = at, row = block.rows[i], given = block.given[i], other = block.suggested[i] >= 0 && block.suggested[i] !== given ? block.suggested[i] : block.predicted[i];
    const lines = [["given", labelOf(given) || "(no label)"], ...(other >= 0 ? [["rather", other === given ? "as given" : labelOf(other)]] : []), ...(block.suspicion[i] === null ? [] : [["suspicion", String(block.suspicion[i])]]), ...(block.mark[i] === NONE ? [] : [["marked", labelOf(block.mark[i])]])];
    if (inspected !== row) {
      inspected = row;
      inspector.replaceChildren(el("button.close", { text: "×", "aria-label": "close", on: { click: () => { inspector.hidden = true; } } }), el("div.big"), el("p.id"), el("div.alike"), el("dl"));
      const [detail, picture] = await Promise.all([ask("detail", { row }).catch(() => ({ facts: {} })), link.picture("pictures", row).catch(() => null)]);
      if (inspected !== row || closed) return;
      inspector.detail = detail;
      if (pictureUrl) URL.revokeObjectURL(pictureUrl);
      pictureUrl = picture && URL.createObjectURL(picture);
      if (pictureUrl) inspector.querySelector(".big").replaceChildren(el("img", { src: pictureUrl, alt: "", on: { load: (e) => lighten(e.target) } }));
    }
    const d = inspector.detail || { facts: {} };
    if (set.by === "random") d.facts = {};
    if (d.row === row && d.by && block.mark[i] !== NONE) lines.push(["by", `${d.by}, ${d.time.replace("T", " ").replace("Z", " UTC")}`], ...(d.note ? [["note", d.note]] : []));
    inspector.querySelector(".id").textContent = block.ids[i];
    inspector.querySelector("dl").replaceChildren(...[...lines, ...(d.row === row ? Object.entries(d.facts).map(([k, v]) => [k.replaceAll("_", " "), String(v)]) : [])].flatMap(([k, v]) => [el("dt", k), el("dd", v)]));
    const alike = [];
    for (const code of [given, other].filter((code, n, all) => code >= 0 && all.indexOf(code) === n)) {
      const canvas = el("canvas", { width: 296, height: 48 }), lacks = new Set();
      for (let n = 0; n < 6 && (hello.typical[code]?.[n] ?? -1) >= 0; n++) drawTypical(canvas.getContext("2d"), code, n, n * 50, 0, 48, lacks);
      for (const name of lacks) wantSheet(name);
      alike.push(el("p.quiet", `typical ${labelOf(code)}`), canvas);
    }
    inspector.querySelector(".alike").replaceChildren(...alike);
    pump();
  }

  // --- input ---------------------------------------------------------------------------------------------------
  function spot(e) {
    const box_ = scroller.getBoundingClientRect(), y = e.clientY - box_.top, x = e.clientX - box_.left;
    if (!layout || y < layout.head - 8 || y > scroller.clientHeight || x < 0 || x > scroller.clientWidth) return NONE;
    return tileAt(x, y + scroller.scrollTop);
  }
  let hover = null; // where the mouse rests over the tiles
  function inSight(index) {
    const y = rectOf(index).y - scroller.scrollTop;
    return y > layout.head - 8 - layout.size * 0.7 && y < scroller.clientHeight - layout.size * 0.3;
  }
  /** Nothing is done to a tile that isn't on the screen: it is shown first. */
  function ready() {
    if (chosen.size || current < 0 || inSight(current)) return true;
    show(current);
    say("Here it is: press again.");
    return false;
  }
  let touch = null, hovering = false;
  content.addEventListener("pointerdown", (e) => {
    if (e.button !== 0 || e.target.closest("header")) return;
    const index = spot(e);
    if (e.pointerType === "touch") {
      touch = { index, x: e.clientX, y: e.clientY, held: later(() => { if (touch) { touch.long = true; point(touch.index); inspector.hidden = false; inspect(); } }, 500) };
      return;
    }
    scroller.focus({ preventScroll: true });
    if (index < 0) { choose(new Set()); return; }
    e.preventDefault();
    if (e.shiftKey && anchor >= 0) { const span = [...range(anchor, index)]; ensure(span).then((good) => { if (good) apply(span, brush); }); point(index); return; }
    if ((e.ctrlKey || e.metaKey)) { const next = new Set(chosen); if (!next.delete(index)) next.add(index); choose(next); anchor = index; point(index); return; }
    if (!cell(index)) return;
    choose(new Set());
    painting = { mark: markOf(index) === brush || (markOf(index) !== NONE && brush === OUT) ? NONE : brush, done: new Map(), x: e.clientX, y: e.clientY };
    content.setPointerCapture?.(e.pointerId);
    paint(index);
    anchor = index;
    point(index);
  });
  function paint(index) {
    const at = index >= 0 ? cell(index) : null;
    if (!at || painting.done.has(index)) return;
    const { block, i } = at, code = painting.mark === block.given[i] ? NONE : painting.mark;
    painting.done.set(index, block.mark[i]);
    block.mark[i] = code;
    redraw(index);
  }
  content.addEventListener("pointermove", (e) => {
    if (e.pointerType === "touch") { if (touch && Math.hypot(e.clientX - touch.x, e.clientY - touch.y) > 9) { clearTimeout(touch.held); touch = null; } return; }
    if (painting) {
      const far = Math.hypot(e.clientX - painting.x, e.clientY - painting.y), n = Math.max(1, Math.ceil(far / 12));
      for (let k = 1; k <= n; k++) paint(spot({ clientX: painting.x + ((e.clientX - painting.x) * k) / n, clientY: painting.y + ((e.clientY - painting.y) * k) / n }));
      painting.x = e.clientX; painting.y = e.clientY;
      return;
    }
    hover = { clientX: e.clientX, clientY: e.clientY };
    const index = e.target.closest("header") ? NONE : spot(e);
    if (index !== current && !chosen.size && (index >= 0 || hovering)) { hovering = index >= 0; point(index); }
  });
  scroller.addEventListener("pointerleave", () => { hover = null; if (hovering && !painting && !chosen.size) { hovering = false; point(NONE); } });
  function creep() { // at the edges the tiles move on under the brush
    if (!painting) return;
    const box_ = scroller.getBoundingClientRect(), low = painting.y > box_.bottom - 24, high = painting.y < box_.top + layout.head;
    if (!low && !high) return;
    scroller.scrollTop += low ? 12 : -12;
    paint(spot({ clientX: painting.x, clientY: clamp(painting.y, box_.top + layout.head, box_.top + scroller.clientHeight - 4) }));
  }
  function painted() {
    if (!painting) return;
    const { done, mark } = painting;
    painting = null;
    const marks = [];
    for (const [index, before] of done) {
      const at = cell(index);
      if (at && before !== at.block.mark[at.i]) marks.push({ row: at.block.rows[at.i], sample_id: at.block.ids[at.i], mark: at.block.mark[at.i], stamp: at.block.stamp[at.i] });
    }
    if (mark >= 0) note(mark);
    if (marks.length) push({ kind: "marks", marks });
    point(current);
  }
  content.addEventListener("pointerup", (e) => {
    if (e.pointerType === "touch") {
      if (!touch) return;
      clearTimeout(touch.held);
      const { index, long } = touch;
      touch = null;
      if (!long && index >= 0 && cell(index)) { point(index); anchor = index; apply([index], markOf(index) !== NONE ? NONE : brush); }
      return;
    }
    painted();
  });
  content.addEventListener("pointercancel", () => { if (touch) clearTimeout(touch.held); touch = null; painted(); });
  content.addEventListener("contextmenu", (e) => { if (touch) e.preventDefault(); });
  content.addEventListener("dragstart", (e) => e.preventDefault());

  function key(e) {
    if (!view || box.open || help.open) return;
    const field = e.target.matches?.("input:not([type=range]), select, textarea");
    if (e.target.type === "range" && /^(Arrow|Home|End|Page)/.test(e.key)) { e.stopPropagation(); return; }
    if (field) { if (e.key === "Enter" && e.target.className === "who") e.target.blur(); if (e.key === "Escape") { e.target.blur(); scroller.focus(); } e.stopPropagation(); return; }
    if (e.target.closest?.("button") && (e.key === "Enter" || e.key === " ")) { e.stopPropagation(); return; }
    const letter = e.key.length === 1 ? e.key.toLowerCase() : e.key, command = e.ctrlKey || e.metaKey;
    let used = true;
    if (e.altKey) used = false;
    else if (command && letter === "z") push({ kind: e.shiftKey ? "redo" : "undo" });
    else if (command && letter === "y") push({ kind: "redo" });
    else if (command && letter === "a") { const g = groupNow(); if (g >= 0) { choose(range(view.starts[g], view.starts[g + 1] - 1)); if (current < 0) point(view.starts[g]); } } else if (command) used = false;
    else if (/^(Arrow|Home$|End$)/.test(e.key)) step(e.key, e.shiftKey);
    else if (letter === "x" || letter === "Delete") act(OUT);
    else if (letter === "Backspace" || letter === "u") { const list = targets(); if (ready()) ensure(list).then((good) => { if (good) apply(list, NONE); }); } else if (letter === "Enter") suggest();
    else if (/^[1-9]$/.test(letter)) { const code = onOffer()[+letter - 1]; if (code === undefined) say("No label is on offer under this digit. L gives any."); else act(code); } else if (letter === "l") openBox();
    else if (letter === "z") push({ kind: "undo" });
    else if (letter === "y") push({ kind: "redo" });
    else if (letter === "f") fine();
    else if (letter === "n" || letter === "p") jump(clamp(groupNow() + (letter === "n" ? 1 : -1), 0, layout.shown - 1));
    else if (letter === " ") { inspector.hidden = !inspector.hidden; inspected = NONE; inspect(); } else if (letter === "PageDown" || letter === "PageUp") scroller.scrollTop += (letter === "PageDown" ? 1 : -1) * (scroller.clientHeight - layout.head - 30);
    else if (letter === "+" || letter === "=") resize(set.size + 12);
    else if (letter === "-") resize(set.size - 12);
    else if (letter === "s" || letter === "/") bar.search.focus();
    else if (letter === "g") finder.focus();
    else if (letter === "r") toggle("refs");
    else if (letter === "b") toggle("bright");
    else if (letter === "?") showHelp();
    else if (letter === "Escape") { choose(new Set()); inspector.hidden = true; } else used = false;
    if (used) { e.preventDefault(); e.stopPropagation(); }
  }
  app.addEventListener("keydown", key);
  app.addEventListener("click", (e) => { if (e.detail && e.target.closest("button") && !e.target.closest("dialog")) scroller.focus({ preventScroll: true }); });
  const outside = (e) => { if (document.activeElement === document.body && options.whole) key(e); };
  document.addEventListener("keydown", outside);
  scroller.addEventListener("scroll", () => { if (hovering && hover && !painting && !chosen.size) point(spot(hover)); refresh(); }, { passive: true });

  // --- what was on the screen ----------------------------------------------------------------------------------
  // A sample counts as seen when it was looked at and passed by: while it is on the screen it may still be marked. In
  // the random sample only what was passed going down counts, so that its judged part has no holes.
  function tick() {
    if (!view || document.hidden || closed || !layout.shown) { seenTick = new Map(); return; }
    const top = scroller.scrollTop, now = new Map(), random = set.by === "random";
    eachTile(top + layout.head - layout.rowStep / 2, top + scroller.clientHeight - layout.size * 0.6, (index) => {
      const at = cell(index);
      if (!at || !bitmaps.has(sheetOf(at.block, at.i).name)) return;
      const ticks = (seenTick.get(index) || 0) + 1;
      now.set(index, ticks);
      if (ticks >= LOOK && (random || !(at.block.flags[at.i] & 1))) passing.set(index, at.block.rows[at.i]);
    });
    for (const [index, row] of passing) {
      if (now.has(index) || (random && rectOf(index).y + layout.size > top + layout.head)) continue;
      passing.delete(index);
      const at = cell(index);
      if (at && !random) at.block.flags[at.i] |= 1;
      (random ? randomWaiting : seenWaiting).push(row);
    }
    seenTick = now;
  }
  async function tellSeen() {
    for (const [list, random] of [[seenWaiting, false], [randomWaiting, true]]) {
      const rows = list.splice(0, 10000);
      if (rows.length) try { await ask("seen", { rows, random }); progressSoon(); } catch { list.push(...rows); }
    }
  }
  const every = (call, ms) => { const id = setInterval(call, ms); return () => clearInterval(id); };
  const stops = [every(tick, 400), every(tellSeen, 1500), every(changes, 2500), every(() => remember(), 4000), every(creep, 30)];
  const watcher = new ResizeObserver(() => { if (view && Math.abs(Math.max(scroller.clientWidth - 20, 120) - layout.width) > 0.5) relayout(); else refresh(); });
  watcher.observe(scroller);
  const dark = matchMedia("(prefers-color-scheme: dark)"), recolour = () => theme();
  dark.addEventListener("change", recolour);
  const leave = (e) => { painted(); if (waiting()) { e.preventDefault(); e.returnValue = ""; } };
  const woke = () => { if (!document.hidden) { changes(); send(); refresh(); } };
  addEventListener("beforeunload", leave);
  document.addEventListener("visibilitychange", woke);

  async function begin() {
    try {
      hello = await ask("hello", { bright: true });
      const named = store("reviewer"), own = hello.reviewer;
      set.reviewer = own;
      if (named?.name && named.instead === own && named.name !== own) {
        set.reviewer = named.name;
        try { hello = await ask("hello", { bright: true }); } catch (error) { if (error.status !== 422) throw error; set.reviewer = own; store("reviewer", null); }
      }
      hello.own = own;
      Object.assign(set, hello.place?.set || {});
      if (set.by.startsWith("column:") && !hello.columns.includes(set.by.slice(7))) set.by = "label";
      if (!hello.audited) { if (set.within !== "visual") set.within = "visual"; if (set.by === "pair") set.by = "label"; if (set.show === "suspicious") set.show = "all"; }
      if (!set.bright) hello.references = (await ask("hello", { bright: false })).references;
      steps = hello.steps;
      marksKnown = hello.number;
      app.dataset.theme = set.theme;
      drawBar();
      conflicts = hello.conflicts;
      drawTray();
      queue = leftOver();
      keepQueue();
      if (queue.length) say(`${several(waiting(), "mark")} that could not be saved before ${waiting() === 1 ? "is" : "are"} sent now.`, "warn");
      for (const words of hello.notes) say(words, "warn");
      tell();
      await open(hello.place?.place);
      send();
      scroller.focus({ preventScroll: true });
    } catch (error) {
      empty.hidden = false;
      empty.replaceChildren(el("p", { text: error.status === 403 ? error.message : `${error.message || error}. Trying again…` }));
      if (error.status !== 403) later(begin, 2500);
    }
  }
  begin();
  root.review = {
    painted() {
      if (view && !layout.shown) return true;
      const first = Math.floor(scroller.scrollTop / STRIP), last = Math.floor(Math.min(scroller.scrollTop + scroller.clientHeight, layout?.height) / STRIP);
      for (let k = first; k <= last; k++) { const strip = strips.get(k); if (!strip || strip.dirty || strip.lacks.size) return false; }
      return !!view && !app.classList.contains("busy");
    },
    ready: () => root.review.painted() && !loading.size && ![...strips.values()].some((strip) => strip.dirty || strip.lacks.size),
    saved: () => !waiting() && !sending, view: () => view, settings: () => ({ ...set }), current: () => current, problem: () => problem,
    rect(index) { const { x, y } = rectOf(index), at = content.getBoundingClientRect(); return { x: at.left + x + layout.size / 2, y: at.top + y + layout.size / 2, top: y, size: layout.size }; },
    sample(index) { const at = cell(index); return at && { id: at.block.ids[at.i], row: at.block.rows[at.i], mark: labelOf(at.block.mark[at.i]), given: labelOf(at.block.given[at.i]), suggested: labelOf(at.block.suggested[at.i]), suspicion: at.block.suspicion[at.i], flags: at.block.flags[at.i] }; },
    visible() { const found = []; eachTile(scroller.scrollTop + layout.head, scroller.scrollTop + scroller.clientHeight - layout.size, (index) => found.push(index)); return found; },
    scroller, layout: () => layout, counts: () => ({ blocks: blocks.size, bitmaps: bitmaps.size, strips: strips.size }),
  };
  return () => {
    closed = true;
    for (const stop of stops) stop();
    for (const id of timers) clearTimeout(id);
    watcher.disconnect();
    dark.removeEventListener("change", recolour);
    removeEventListener("beforeunload", leave);
    document.removeEventListener("visibilitychange", woke);
    document.removeEventListener("keydown", outside);
    for (const picture of bitmaps.values()) picture.close();
    link.close();
    root.replaceChildren();
  };
}

const place = globalThis.document?.querySelector("[data-mlfix-review]");
if (place) {
  if (location.search) history.replaceState(null, "", location.pathname); // the token has done its work
  start(place, httpLink(), { whole: true });
}

export default {
  render({ model, el: root }) { return start(root, widgetLink(model), { height: model.get("height") }); },
};
