// The review page, in a browser and as an anywidget. Groups have sticky headings; tiles are drawn on canvas strips, which
// the browser scrolls; a change counts as saved when the server or kernel has confirmed that it is on disk.
// Labels and names are only ever inserted as text, never as HTML.

const NONE = -1, INVALID = -2, STRIP = 512, HEADER_HEIGHT = 44, TYPICAL_HEIGHT = 56, SIDE_ROW = 46, MAX_BITMAP_BYTES = 72e6, MAX_BLOCKS = 80;
const SEEN_TICKS = 5; // ticks of 400 ms on the screen after which a sample counts as seen
const MAX_HEIGHT = globalThis.CSS?.supports?.("-moz-appearance:none") ? 16e6 : 30e6;

function el(name, options, ...children) {
  const [tag, ...classes] = name.split("."), node = document.createElement(tag);
  if (typeof options !== "object" || options instanceof Node) { children.unshift(options); options = {}; }
  node.className = classes.join(" ");
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [name, callback] of Object.entries(value)) node.addEventListener(name, callback);
    else if (key === "style") Object.assign(node.style, value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const formatCount = (x) => Math.round(x).toLocaleString("en");
const formatEstimate = (x) => (x >= 10 ? formatCount(x) : x >= 0.05 ? x.toFixed(1) : "0");
const formatRange = ([low, high]) => `${formatCount(Math.floor(low))} to ${formatCount(Math.ceil(high))}`;
const formatShare = (x) => (x >= 9.95 ? formatCount(x) : x.toFixed(x >= 0.095 ? 1 : 2));
const windowId = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`; // this window
let requestCount = 0;
/** Text that is cut in the middle where it doesn't fit: labels of a family differ near their ends. */
function cutMiddle(text) {
  const letters = Array.from(text), n = letters.length > 18 ? 9 : Math.floor(letters.length / 2);
  return n ? [el("span", letters.slice(0, -n).join("")), el("span", letters.slice(-n).join(""))] : [el("span", text)];
}
const plural = (n, markText) => `${formatCount(n)} ${markText}${n === 1 ? "" : "s"}`;
const percent = (x) => `${Math.round(100 * x)}%`;
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

/** Connection over HTTP: JSON by POST, images by GET. */
function httpConnection() {
  return {
    async request(kind, payload) {
      const reply = await fetch(`/api/${kind}`, {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(payload), signal: AbortSignal.timeout(30000),
      });
      const json = (reply.headers.get("content-type") || "").includes("json");
      return { status: reply.status, response: json ? await reply.json() : { error: (await reply.text()).trim() } };
    },
    async image(kind, name) {
      const reply = await fetch(`/${kind}/${name}.jpg`, { signal: AbortSignal.timeout(30000) });
      if (!reply.ok) throw new Error(String(reply.status));
      return reply.blob();
    },
    close() {},
  };
}

/** Connection to a notebook's kernel: numbered messages, images as buffers. */
function kernelConnection(model) {
  const pending = new Map();
  let last = 0;
  const prefix = Math.random().toString(36).slice(2);
  const onMessage = (message, buffers) => {
    const resolve = pending.get(message?.id);
    if (!resolve) return;
    pending.delete(message.id);
    resolve({ status: message.status, response: message.response, buffers });
  };
  model.on("msg:custom", onMessage);
  const send = (kind, payload) => new Promise((resolve, reject) => {
    const id = `${prefix}-${last++}`;
    pending.set(id, resolve);
    setTimeout(() => pending.delete(id) && reject(new Error("the kernel does not respond")), 60000);
    model.send({ id, kind, payload });
  });
  return {
    kernel: true,
    request: send,
    async image(kind, name) {
      const { status, buffers } = await send(kind, { name });
      if (status !== 200) throw new Error(String(status));
      return new Blob([buffers[0]], { type: "image/jpeg" });
    },
    close() { model.off("msg:custom", onMessage); },
  };
}

const KEYS = [
  ["Click, tap", "mark with the current brush, or remove the mark"], ["Drag", "mark several"], ["Shift + click", "mark from the last tile to this one"],
  ["← ↑ → ↓", "move between tiles; with Shift, select several"], ["Ctrl + click, Ctrl + A", "select a tile, or the whole group"], ["X, Delete", "mark as invalid (exclude the sample)"],
  ["Enter", "accept the suggested label"], ["1 … 9", "set the label with this number"], ["L", "set any other label"], ["U, Backspace", "remove the mark"],
  ["Z, Y", "undo, redo (Ctrl + Z, Ctrl + Shift + Z)"], ["F", "mark the group as reviewed and go to the next"], ["N, P", "next group, previous group"],
  ["Space", "show the full image and all scores"], ["Home, End", "first and last tile of the group"], ["Page ↑ ↓", "scroll"], ["+ −", "larger, smaller tiles"],
  ["S or /, G", "search samples, find a group"], ["R", "show or hide typical images of the label"], ["B", "brighten dark images, on or off"], ["Esc", "clear the selection, close"], ["?", "this list"],
];

/** Builds the page in `root`; returns a function that removes it. */
export function start(root, connection, options = {}) {
  let session = null, view = null, lastViewRequest = 0, closed = false;
  const settings = { group_by: "label", sort_by: "suspicion", group_order: "suspicion", filter: "all", search: "", size: 72, brighten: true, typical: true, theme: "auto" };
  const blocks = new Map(), bitmaps = new Map(), indexOfRow = new Map(), strips = new Map(), sections = new Map();
  const loading = new Set(), suggestions = new Map(), recent = [], fittedTexts = new Map();
  let bitmapBytes = 0, layout = null, current = NONE, anchor = NONE, selected = new Set(), brush = INVALID, stroke = null, knownRevision = 0;
  let queue = [], sending = false, problem = "", conflicts = [], steps = [0, 0], lastProgress = null, colors = {}, ticksOnScreen = new Map();
  const seenRows = [], seenRandomRows = [], leaving = new Map();
  const timers = new Set();
  const schedule = (callback, ms) => { const id = setTimeout(() => { timers.delete(id); if (!closed) callback(); }, ms); timers.add(id); return id; };

  // --- elements -----------------------------------------------------------------------------------------------
  const dropdown = (name, label, entries) => el("label.pick", el("span", label),
    el("select", { "aria-label": label, on: { change: (e) => { settings[name] = e.target.value; e.target.blur(); openView(); } } }, ...entries.map(([value, text]) => el("option", { value, text, selected: settings[name] === value }))));
  const toolbar = el("div.bar");
  const side = el("aside.side");
  const content = el("div.content");
  const cursor = el("div.cursor", { hidden: true });
  const scroller = el("main.scroller", { tabIndex: 0, "aria-label": "images; use the arrow keys to move, ? for all keys" }, content);
  const empty = el("div.empty", { hidden: true });
  const inspector = el("div.inspector", { hidden: true });
  const brushes = el("div.brushes", { role: "toolbar", "aria-label": "suggested labels" });
  const foot = el("div.foot");
  const saved = el("span.saved", { role: "status" });
  const tray = el("div.tray", { hidden: true, role: "alert" });
  const toasts = el("div.toasts"), live = el("div.live", { "aria-live": "polite" });
  const labelDialog = el("dialog.box"), helpDialog = el("dialog.help");
  const app = el("div.mlfix", { tabIndex: -1, "data-lm-suppress-shortcuts": "true" }, toolbar, el("div.middle", side, el("div.stage", scroller, empty, inspector, toasts)), tray, foot, live, labelDialog, helpDialog);
  foot.append(brushes, saved);
  root.replaceChildren(app);
  if (options.height) app.style.height = `${options.height}px`;

  function store(name, value) {
    try {
      if (value === undefined) return JSON.parse(localStorage.getItem(`mlfix-review:${session.id}:${name}`) || "null");
      if (value === null) localStorage.removeItem(`mlfix-review:${session.id}:${name}`);
      else localStorage.setItem(`mlfix-review:${session.id}:${name}`, JSON.stringify(value));
    } catch { /* without storage the page still works */ }
    return null;
  }
  const calibrated = () => session.calibrated || !!view?.intervals; // whether suspicion is a probability
  const labelOf = (code) => (code === INVALID ? "invalid" : code < 0 ? "" : session.labels[code]);

  async function request(kind, payload = {}) {
    const { status, response } = await connection.request(kind, { reviewer: settings.reviewer, ...payload });
    if (status === 403) throw Object.assign(new Error("The server was restarted: open the new link that it printed."), { status });
    if (status >= 400 && status !== 409) throw Object.assign(new Error([response.error, response.hint].filter(Boolean).join(": ")), { status });
    return response;
  }
  function showToast(message, kind = "") {
    const toast = el("div", { className: `toast ${kind}`, text: message, role: "status" });
    toasts.append(toast);
    schedule(() => toast.remove(), kind ? 6000 : 2200);
  }

  // --- views and layout ----------------------------------------------------------------------------------------
  async function openView(position) {
    const requestNumber = ++lastViewRequest;
    app.classList.add("busy");
    try {
      const { group_by, sort_by, group_order, filter, search } = settings;
      const response = await request("view", { group_by, sort_by, group_order, filter, search });
      if (requestNumber !== lastViewRequest) return;
      const same = view && view.view === response.view;
      view = { ...response, starts: [0] };
      for (const size of response.sizes) view.starts.push(view.starts.at(-1) + size);
      if (!same) { clearTiles(); suggestions.clear(); current = anchor = NONE; selected.clear(); }
      computeLayout();
      currentSideGroup = NONE;
      brushes.same = "";
      if (!same) setCurrent(NONE);
      scroller.scrollTop = 0;
      if (position) restorePosition(position);
      drawSide();
      refresh();
      progressSoon(50);
    } catch (error) {
      if (error.status === 422 && !openView.reset) { // a setting that does not apply to these samples
        openView.reset = true;
        Object.assign(settings, { group_by: "label", sort_by: session.audited ? "suspicion" : "visual", group_order: "suspicion", filter: "all", search: "" });
        drawBar();
        schedule(() => openView(), 0);
        return;
      }
      showProblem(error);
      if (requestNumber === lastViewRequest) schedule(() => openView(position), 2500);
    } finally { if (requestNumber === lastViewRequest) app.classList.remove("busy"); }
  }
  function clearTiles() {
    leaving.clear();
    ticksOnScreen = new Map();
    blocks.clear(); indexOfRow.clear();
    for (const strip of strips.values()) strip.node.remove();
    for (const node of sections.values()) node.remove();
    strips.clear(); sections.clear();
  }
  const hasTypical = () => settings.typical && (settings.group_by === "label" || settings.group_by === "pair") && session.labeled;
  function computeLayout() {
    const width = Math.max(scroller.clientWidth - 20, 120), size = settings.size, gap = size < 56 ? 4 : 8, hasCaption = size >= 56;
    const lines = hasCaption ? (settings.group_by === "label" || settings.group_by === "pair" ? 1 : 2) : 0;
    const columns = Math.max(1, Math.floor((width + gap) / (size + gap)));
    const step = size + gap, rowStep = size + 5 + lines * 14 + gap, head = HEADER_HEIGHT + (hasTypical() ? TYPICAL_HEIGHT : 0);
    const tops = [0];
    let shown = 0;
    for (const count of view.sizes) {
      const next = tops.at(-1) + head + Math.ceil(count / columns) * rowStep + 14;
      if (next > MAX_HEIGHT) break;
      tops.push(next);
      shown++;
    }
    layout = { width, size, gap, lines, columns, step, rowStep, head, tops, shown, height: tops.at(-1) };
    for (const strip of strips.values()) strip.node.remove();
    for (const node of sections.values()) node.remove();
    strips.clear(); sections.clear(); fittedTexts.clear();
    content.style.height = `${layout.height + Math.max(40, scroller.clientHeight - head - rowStep)}px`; // so that the last group can scroll to the top
    content.replaceChildren(cursor);
    if (shown < view.sizes.length) content.append(el("p.overflow", { style: { top: `${layout.height}px` }, text: `${plural(view.sizes.length - shown, "group")} do not fit on one page: search, filter, or make the tiles smaller.` }));
    empty.hidden = view.count > 0;
    empty.replaceChildren(el("p", { text: settings.search ? `Nothing matches “${settings.search}”.` : { marked: "Nothing is marked yet.", unmarked: "Everything is marked.", suspicious: "Nothing is suspicious.", unreviewed: "Everything has been reviewed." }[settings.filter] || "There is nothing to show." }),
      el("button.plain", { text: "Show all", on: { click: () => { settings.search = ""; settings.filter = "all"; drawBar(); openView(); } } }));
    readColors();
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
  function eachTile(top, bottom, callback) {
    if (!layout.shown) return;
    for (let g = groupAt(Math.max(top, 0)); g < layout.shown && layout.tops[g] < bottom; g++) {
      const base = layout.tops[g] + layout.head, rows = Math.ceil(view.sizes[g] / layout.columns);
      const first = clamp(Math.floor((top - base) / layout.rowStep), 0, rows), last = clamp(Math.floor((bottom - base) / layout.rowStep), -1, rows - 1);
      for (let i = first * layout.columns; i < Math.min((last + 1) * layout.columns, view.sizes[g]); i++) {
        callback(view.starts[g] + i, 10 + (i % layout.columns) * layout.step, base + Math.floor(i / layout.columns) * layout.rowStep);
      }
    }
  }

  // --- samples and images ------------------------------------------------------------------------------------
  function cell(index) {
    const block = blocks.get(Math.floor(index / session.block_size));
    return block && !block.waits ? { block, i: index % session.block_size } : null;
  }
  function large() { return session.large[0] > session.small[0] && layout.size * devicePixelRatio > session.small[0] * 1.2; }
  function sheetOf(block, i) {
    if (!large()) return { name: block.small, side: session.small[0], columns: session.small[1], i };
    const per = session.large[1] ** 2;
    return { name: block.large[Math.floor(i / per)], side: session.large[0], columns: session.large[1], i: i % per };
  }
  function bitmap(name) {
    const found = bitmaps.get(name);
    if (found) { bitmaps.delete(name); bitmaps.set(name, found); }
    return found;
  }
  let loadQueue = [];
  function enqueueLoad(key, callback) { if (!loading.has(key) && !loadQueue.some((one) => one.key === key)) loadQueue.push({ key, callback }); }
  function startLoading() {
    while (loading.size < 6 && loadQueue.length) {
      const { key, callback } = loadQueue.shift();
      loading.add(key);
      callback().catch((error) => { if (error.status === 410) openView(currentPosition()); else schedule(refresh, 1500); }).finally(() => { loading.delete(key); if (!closed) { startLoading(); refresh(); } });
    }
  }
  function loadBlock(number) {
    if (number < 0 || number * session.block_size >= view.count || blocks.has(number)) return;
    const of = view.view;
    enqueueLoad(`${of}:${number}`, async () => {
      const response = await request("block", { view: of, number, brighten: settings.brighten });
      if (!view || view.view !== of) return;
      storeBlock(number, response);
      if (current >= 0 && Math.floor(current / session.block_size) === number) setCurrent(current);
    });
  }
  function storeBlock(number, response) {
    blocks.set(number, response);
    response.rows.forEach((row, i) => indexOfRow.set(row, number * session.block_size + i));
    for (const item of queue) for (const one of item.marks || []) { const i = response.rows.indexOf(one.row); if (i >= 0) response.marks[i] = one.mark; }
    while (blocks.size > MAX_BLOCKS) {
      const [far] = [...blocks.keys()].sort((a, b) => Math.abs(b - number) - Math.abs(a - number));
      for (const row of blocks.get(far).rows) indexOfRow.delete(row);
      blocks.delete(far);
    }
    redrawBlock(number);
    refresh();
  }
  function loadSheet(name) {
    if (!name || bitmaps.has(name)) return;
    enqueueLoad(name, async () => {
      const image = await createImageBitmap(await connection.image("sprites", name));
      if (closed) { image.close(); return; }
      bitmaps.set(name, image);
      bitmapBytes += image.width * image.height * 4;
      for (const [old, one] of bitmaps) {
        if (bitmapBytes <= MAX_BITMAP_BYTES || old === name) break;
        bitmaps.delete(old);
        bitmapBytes -= one.width * one.height * 4;
        one.close();
      }
      for (const strip of strips.values()) if (strip.missing.has(name)) strip.dirty = true;
      for (const node of sections.values()) if (node.missing?.has(name)) drawTypicalRow(node);
      if (labelDialog.open) fillLabelDialog();
      if (!inspector.hidden) inspect();
    });
  }
  function redrawBlock(number) {
    for (const strip of strips.values()) if (strip.missing.has(number)) strip.dirty = true;
  }

  // --- drawing -------------------------------------------------------------------------------------------------
  function readColors() {
    const style = getComputedStyle(app), value = (name) => style.getPropertyValue(name).trim();
    colors = Object.fromEntries(["ink", "grey", "mat", "ground", "blue", "red", "track", "card", "green"].map((name) => [name, value(`--${name}`)]));
    colors.font = `11px ${style.fontFamily}`;
    colors.bold = `600 11px ${style.fontFamily}`;
  }
  function fitText(ctx, text, width) {
    const key = `${width}|${ctx.font}|${text}`;
    let found = fittedTexts.get(key);
    if (found === undefined) {
      found = text;
      if (ctx.measureText(text).width > width) {
        const rest = text.replace(/^…/, ""), cut = (n) => (n < 6 ? `…${rest.slice(-n)}` : `${rest.slice(0, Math.floor(n / 3))}…${rest.slice(-Math.ceil((2 * n) / 3))}`);
        let low = 0, high = rest.length - 1; // keep the beginning and the end, where names differ
        while (low < high) { const mid = (low + high + 1) >> 1; if (ctx.measureText(cut(mid)).width <= width) low = mid; else high = mid - 1; }
        found = low > 0 ? cut(low) : "";
      }
      if (fittedTexts.size > 8000) fittedTexts.clear();
      fittedTexts.set(key, found);
    }
    return found;
  }
  function nameOf(g) {
    const given = view.given[g], other = view.other[g];
    return other >= 0 && given >= 0 && other !== given ? `${labelOf(given)} → ${shortLabel(other, given)}` : view.names[g];
  }
  /** The part of a label that differs from another one: "…30" beside "speed-limit-80". */
  function shortLabel(code, beside) {
    const name = labelOf(code), other = labelOf(beside);
    let n = 0;
    while (n < name.length && name[n] === other[n]) n++;
    while (n > 0 && !/[\s_./-]/.test(name[n - 1])) n--;
    return n > 3 ? `…${name.slice(n)}` : name;
  }
  function drawTile(ctx, index, x, y, missing) {
    const size = layout.size, at = cell(index);
    if (!at) {
      const number = Math.floor(index / session.block_size);
      missing.add(number);
      ctx.fillStyle = colors.mat;
      ctx.fillRect(x, y, size, size);
      return;
    }
    const { block, i } = at, sheet = sheetOf(block, i), image = bitmap(sheet.name);
    const mark = block.marks[i], flags = block.flags[i];
    if (image) ctx.drawImage(image, (sheet.i % sheet.columns) * sheet.side, Math.floor(sheet.i / sheet.columns) * sheet.side, sheet.side, sheet.side, x, y, size, size);
    else {
      missing.add(sheet.name);
      const small = large() && bitmap(block.small);
      if (small) ctx.drawImage(small, (i % session.small[1]) * session.small[0], Math.floor(i / session.small[1]) * session.small[0], session.small[0], session.small[0], x, y, size, size);
      else { ctx.fillStyle = colors.mat; ctx.fillRect(x, y, size, size); }
    }
    const suspicion = block.suspicion[i];
    if (suspicion !== null) {
      ctx.fillStyle = colors.track;
      ctx.fillRect(x, y + size + 1, size, 3);
      ctx.fillStyle = colors.red;
      ctx.fillRect(x, y + size + 1, size * suspicion, 3);
    }
    if (selected.has(index)) { ctx.strokeStyle = colors.blue; ctx.lineWidth = 2; ctx.setLineDash([4, 3]); ctx.strokeRect(x - 2, y - 2, size + 4, size + 4); ctx.setLineDash([]); }
    if (mark !== NONE) {
      const color = mark === INVALID ? colors.red : colors.blue, edge = clamp(size / 28, 2, 4), badge = clamp(size / 3.4, 13, 26);
      if (mark === INVALID) { ctx.fillStyle = colors.ground; ctx.globalAlpha = 0.5; ctx.fillRect(x, y, size, size); ctx.globalAlpha = 1; }
      ctx.strokeStyle = color; ctx.lineWidth = edge;
      ctx.strokeRect(x + edge / 2, y + edge / 2, size - edge, size - edge);
      ctx.fillStyle = color;
      ctx.fillRect(x + size - badge, y, badge, badge);
      ctx.strokeStyle = colors.card; ctx.lineWidth = Math.max(1.6, badge / 9);
      ctx.beginPath();
      const a = x + size - badge * 0.7, b = x + size - badge * 0.3, c = y + badge * 0.3, d = y + badge * 0.7;
      if (mark === INVALID) { ctx.moveTo(a, c); ctx.lineTo(b, d); ctx.moveTo(b, c); ctx.lineTo(a, d); }
      else { const m = y + badge / 2; ctx.moveTo(a, m); ctx.lineTo(b, m); ctx.moveTo(b - badge * 0.17, m - badge * 0.17); ctx.lineTo(b, m); ctx.lineTo(b - badge * 0.17, m + badge * 0.17); }
      ctx.stroke();
    } else if (flags & 2) {
      const r = clamp(size / 9, 5, 8), cx = x + size - r - 3, cy = y + size - r - 3;
      ctx.fillStyle = colors.green; ctx.beginPath(); ctx.arc(cx, cy, r, 0, 7); ctx.fill();
      ctx.strokeStyle = colors.card; ctx.lineWidth = 1.6; ctx.beginPath(); ctx.moveTo(cx - r * 0.45, cy); ctx.lineTo(cx - r * 0.1, cy + r * 0.4); ctx.lineTo(cx + r * 0.5, cy - r * 0.4); ctx.stroke();
    }
    if (layout.lines) caption(ctx, block, i, x, y + size + 15, mark);
  }
  function caption(ctx, block, i, x, y, mark) {
    const width = layout.size, suspicion = block.suspicion[i], score = suspicion === null ? "" : percent(suspicion);
    ctx.font = colors.font;
    if (layout.lines === 2) { ctx.fillStyle = colors.ink; ctx.fillText(fitText(ctx, labelOf(block.given[i]) || "(no label)", width), x, y); y += 14; }
    const room = score ? width - 27 : width;
    const other = block.predicted[i] >= 0 && block.predicted[i] !== block.given[i] ? shortLabel(block.predicted[i], block.given[i]) : "";
    if (mark !== NONE) { ctx.font = colors.bold; ctx.fillStyle = mark === INVALID ? colors.red : colors.blue; ctx.fillText(fitText(ctx, mark === INVALID ? "invalid" : shortLabel(mark, block.given[i]), room), x, y); ctx.font = colors.font; }
    else if (other) { ctx.fillStyle = colors.grey; ctx.fillText(`→ ${fitText(ctx, other, room - 13)}`, x, y); }
    if (score) { ctx.fillStyle = colors.grey; ctx.textAlign = "right"; ctx.fillText(score, x + width, y); ctx.textAlign = "left"; }
  }
  function drawStrip(k, strip) {
    const ratio = devicePixelRatio || 1, width = Math.round((layout.width + 20) * ratio), height = Math.round(STRIP * ratio);
    if (strip.node.width !== width || strip.node.height !== height) { strip.node.width = width; strip.node.height = height; }
    const ctx = strip.ctx, top = k * STRIP;
    strip.missing.clear();
    strip.dirty = false;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, layout.width + 20, STRIP);
    ctx.imageSmoothingQuality = "medium";
    eachTile(top - layout.rowStep, top + STRIP, (index, x, y) => drawTile(ctx, index, x, y - top, strip.missing));
  }
  function redraw(index) {
    const { x, y, g } = rectOf(index);
    if (g >= layout.shown) return;
    for (let k = Math.floor((y - 4) / STRIP); k <= Math.floor((y + layout.rowStep) / STRIP); k++) {
      const strip = strips.get(k);
      if (!strip || strip.dirty) continue;
      const ctx = strip.ctx;
      ctx.clearRect(x - 3, y - 3 - k * STRIP, layout.size + 6, layout.rowStep - layout.gap + 3);
      drawTile(ctx, index, x, y - k * STRIP, strip.missing);
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
    const kept = new Set();
    for (let k = first; k <= last; k++) kept.add(k);
    for (const k of ahead) if (k >= 0 && k * STRIP < layout.height) kept.add(k);
    for (const [k, strip] of strips) if (!kept.has(k) && (strip.dirty || strip.missing.size || Math.abs(k - first) > 4 + last - first)) { strip.node.remove(); strips.delete(k); }
    loadQueue = [];
    let more = false, number = 0;
    for (const k of kept) {
      let strip = strips.get(k);
      if (!strip) {
        const node = el("canvas.strip", { style: { top: `${k * STRIP}px`, width: `${layout.width + 20}px`, height: `${STRIP}px` } });
        strip = { node, ctx: node.getContext("2d"), missing: new Set(), dirty: true };
        strips.set(k, strip);
        content.append(node);
      }
      if (strip.dirty) {
        if (number && performance.now() - began > 7) { more = true; continue; }
        drawStrip(k, strip);
        number++;
      }
      for (const key of strip.missing) if (typeof key === "number") loadBlock(key); else loadSheet(key);
    }
    const next = down ? last + 2 : first - 2;
    eachTile(next * STRIP, next * STRIP + 1, (index) => loadBlock(Math.floor(index / session.block_size)));
    updateHeadings(top, height);
    startLoading();
    if (more) refresh();
    if (loadQueue.length) startLoading();
  }
  function updateHeadings(top, height) {
    const shown = new Set();
    if (layout.shown) for (let g = groupAt(top); g < layout.shown && layout.tops[g] < top + height + 200; g++) shown.add(g);
    for (const [g, node] of sections) if (!shown.has(g)) { node.remove(); sections.delete(g); }
    for (const g of shown) if (!sections.has(g)) { const node = section(g); sections.set(g, node); content.append(node); }
    const now = layout.shown ? groupAt(top + layout.head) : NONE;
    if (now !== currentSideGroup) { currentSideGroup = now; drawSideRows(); scrollSideTo(now); if (current < 0) drawBrushes(); }
  }
  function section(g) {
    const node = el("section", { style: { top: `${layout.tops[g]}px`, height: `${layout.tops[g + 1] - layout.tops[g]}px` } });
    const facts = el("small");
    const head = el("header", { style: { height: `${layout.head - 8}px` } },
      el("div.line", el("h2.cut", { title: view.names[g] }, ...cutMiddle(nameOf(g))), facts,
        settings.group_by === "random" && el("button.plain", { text: "Draw 100 more", on: { click: drawMore } }),
        el("button.plain.reviewed", { text: "Mark group as reviewed", title: "Confirm all unmarked labels of this group and go to the next one (F)", on: { click: () => reviewGroup(g) } })));
    node.facts = facts;
    node.g = g;
    if (hasTypical()) {
      node.refs = [view.given[g], view.other[g]].filter((code, i, all) => code >= 0 && all.indexOf(code) === i);
      node.canvas = el("canvas.refs", { "aria-hidden": "true" });
      head.append(el("div.typical", el("span", { text: node.refs.length ? "Typical" : "" }), node.canvas));
    }
    node.append(head);
    updateFacts(node);
    drawTypicalRow(node);
    return node;
  }
  function updateFacts(node) {
    const g = node.g, parts = [plural(view.sizes[g], "sample")];
    if (calibrated() && settings.group_by !== "random") parts.push(`≈ ${formatEstimate(view.expected[g])} expected wrong${view.intervals?.[g] ? ` (${formatRange(view.intervals[g])})` : ""}`);
    if (view.group_marked[g]) parts.push(`${formatCount(view.group_marked[g])} marked`);
    if (view.group_reviewed[g] >= view.sizes[g]) parts.push("all reviewed");
    else if (view.group_reviewed[g]) parts.push(`${formatCount(view.group_reviewed[g])} reviewed`);
    node.facts.textContent = parts.join(" · ");
  }
  function drawTypicalRow(node) {
    if (!node.canvas) return;
    const [count] = session.typical_size, side = 44, ratio = devicePixelRatio || 1, gap = 4;
    const room = Math.max(1, Math.floor((layout.width - 80 - (node.refs.length - 1) * 150) / (side + gap) / Math.max(node.refs.length, 1)));
    const each = Math.min(count, room), width = Math.max(layout.width - 70, 60);
    node.canvas.width = width * ratio;
    node.canvas.height = side * ratio;
    node.canvas.style.width = `${width}px`;
    node.canvas.style.height = `${side}px`;
    const ctx = node.canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.font = colors.font;
    node.missing = new Set();
    let x = 0;
    for (const code of node.refs) {
      if (node.refs.length > 1) { ctx.fillStyle = colors.grey; const text = fitText(ctx, labelOf(code), 120); ctx.fillText(text, x, 26); x += Math.ceil(ctx.measureText(text).width) + 8; }
      for (let i = 0; i < each && (session.typical[code]?.[i] ?? -1) >= 0; i++) { drawTypical(ctx, code, i, x, 0, side, node.missing); x += side + gap; }
      x += 14;
    }
    for (const name of node.missing) loadSheet(name);
  }
  function drawTypical(ctx, code, i, x, y, side, missing) {
    const perSheet = session.typical_size[1], name = session.typical_sheets[Math.floor(code / perSheet)], image = bitmap(name);
    if (!image) { missing.add(name); ctx.fillStyle = colors.mat; ctx.fillRect(x, y, side, side); return; }
    const s = session.small[0];
    ctx.drawImage(image, i * s, (code % perSheet) * s, s, s, x, y, side, side);
  }

  // --- side panel: progress and groups -------------------------------------------------------------------
  let currentSideGroup = NONE, groupFilter = "", shownGroups = [];
  const card = el("div.card");
  const groupSearch = el("input", { type: "search", placeholder: "Find a group", "aria-label": "Find a group", on: { input: () => { groupFilter = groupSearch.value.toLowerCase(); drawSide(); }, keydown: (e) => {
    if (e.key === "Enter" && shownGroups.length) { goToGroup(shownGroups[0]); scroller.focus(); }
  } } });
  const list = el("div.list", { role: "listbox", "aria-label": "groups", on: { scroll: () => drawSideRows() } }), listInner = el("div");
  list.append(listInner);
  side.append(card, groupSearch, list);
  function drawSide() {
    shownGroups = [];
    for (let g = 0; g < view.names.length; g++) if (!groupFilter || view.names[g].toLowerCase().includes(groupFilter)) shownGroups.push(g);
    groupSearch.placeholder = `Find a group (${formatCount(view.names.length)})`;
    listInner.style.height = `${shownGroups.length * SIDE_ROW}px`;
    drawSideRows();
  }
  function drawSideRows() {
    if (!view) return;
    const first = Math.max(0, Math.floor(list.scrollTop / SIDE_ROW) - 3), last = Math.min(shownGroups.length, first + Math.ceil(list.clientHeight / SIDE_ROW) + 8);
    const rows = [];
    for (let n = first; n < last; n++) {
      const g = shownGroups[n], done = view.group_reviewed[g] >= view.sizes[g];
      rows.push(el("button", { className: `row${g === currentSideGroup ? " now" : ""}${done ? " done" : ""}`, role: "option", "aria-selected": String(g === currentSideGroup), style: { top: `${n * SIDE_ROW}px` }, title: view.names[g], on: { click: () => { goToGroup(g); scroller.focus(); } } },
        el("span.name.cut", ...cutMiddle(nameOf(g))), el("span.count", { text: done ? "✓" : view.group_marked[g] ? `${formatCount(view.group_marked[g])} ✕` : "" }),
        el("span.meter", { title: `${formatCount(view.group_reviewed[g])} of ${formatCount(view.sizes[g])} reviewed` }, el("i", { style: { width: `${(100 * view.group_reviewed[g]) / view.sizes[g]}%` } })),
        el("span.count", { text: session.audited && settings.group_by !== "random" ? (view.expected[g] >= 0.05 ? `≈ ${formatEstimate(view.expected[g])}` : "") : formatCount(view.sizes[g]), title: calibrated() ? `wrong labels expected${view.intervals?.[g] ? `, 95% interval ${formatRange(view.intervals[g])}` : ""}` : "" })));
    }
    listInner.replaceChildren(...rows);
  }
  function scrollSideTo(g) {
    const n = shownGroups.indexOf(g);
    if (n < 0) return;
    if (n * SIDE_ROW < list.scrollTop || (n + 1) * SIDE_ROW > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, n * SIDE_ROW - list.clientHeight / 3);
  }
  function goToGroup(g) {
    if (g < 0 || g >= layout.shown) return;
    scroller.scrollTop = layout.tops[g];
    current = anchor = NONE;
    setCurrent(NONE);
    refresh();
  }
  let progressTimer = null;
  function progressSoon(ms = 400) {
    if (progressTimer) return;
    progressTimer = schedule(async () => {
      progressTimer = null;
      let response;
      try { response = await request("progress", { view: view?.view }); } catch { return; } // the queue reports connection problems
      lastProgress = response;
      if (response.group_reviewed && view && response.group_reviewed.length === view.sizes.length) { Object.assign(view, { group_reviewed: response.group_reviewed, group_marked: response.group_marked, expected: response.expected_in_groups, intervals: response.intervals }); drawSideRows(); for (const node of sections.values()) updateFacts(node); }
      drawCard();
    }, ms);
  }
  function drawCard() {
    const p = lastProgress;
    if (!p) return;
    const facts = [[formatCount(p.marked), "marked"], [p.marked_percent === null ? "–" : `${p.marked_percent < 10 ? p.marked_percent.toFixed(1) : Math.round(p.marked_percent)}%`, "of reviewed"]];
    if (p.remaining !== null) facts.push([`≈ ${formatCount(p.remaining)}`, "wrong left"]);
    else facts.push([formatEstimate(p.per_minute[1]), "marks per minute"]);
    const r = p.random_sample, e = p.estimate, busy = p.sprites_ready[1] && p.sprites_ready[0] < p.sprites_ready[1];
    const who = el("input.who", { value: settings.reviewer, "aria-label": "your name, as saved in the fixes", title: "your name, as saved in the fixes", maxLength: 80, spellcheck: false, on: { change: (e) => { rename(e.target); } } });
    const focused = document.activeElement?.className === "who";
    if (focused) return;
    card.replaceChildren(
      el("div.seen", el("b", formatCount(p.reviewed)), ` of ${formatCount(p.samples)} reviewed`),
      el("div.meter.wide", el("i", { style: { width: `${(100 * p.reviewed) / p.samples}%` } })),
      el("div.facts", ...facts.map(([number, message]) => el("div", {}, el("b", number), el("span", message)))),
      el("p", { className: p.keep_going === false ? "message stop" : "message", text: p.message }),
      el("p.pace", { text: `${formatCount(p.per_minute[0])} seen, ${formatEstimate(p.per_minute[1])} marked per minute${busy ? ` · images ${Math.round((100 * p.sprites_ready[0]) / p.sprites_ready[1])}% ready` : ""}` }),
      el("div.count", ...countText(r, e)),
      el("button.plain", { text: settings.group_by === "random" ? "Back to the groups" : !r ? "Judge a sample" : r.reviewed < r.drawn ? "Continue the sample" : "Show the sample", on: { click: () => { settings.group_by = settings.group_by === "random" ? settings.before || "label" : ((settings.before = settings.group_by), "random"); drawBar(); openView(); } } }),
      el("label.name", el("span", "reviewer"), who));
  }
  /** What the judgements say about all labels, or how to make them say it. */
  function countText(sample, estimate) {
    const left = sample ? sample.drawn - sample.reviewed : 0;
    if (!estimate) {
      return [el("p.quiet", sample ? `Judge the sample from the top: ${sample.reviewed} of ${sample.drawn} judged.` : `How many labels are wrong? Judge 100 drawn ${session.audited ? "from all ranks" : "at random"}, and the page can tell.`)];
    }
    const [low, high] = estimate.share_interval;
    return [
      el("p", el("b", `About ${plural(estimate.wrong, "wrong label")} in all`), ` (${formatRange(estimate.interval)}), ${formatShare(estimate.share)}% (${formatShare(low)} to ${formatShare(high)}%)`),
      el("p.quiet", { title: "95% interval", text: `from ${formatCount(estimate.judged)} judged, ${formatCount(estimate.judged_wrong)} of them wrong${left ? `; ${formatCount(left)} of the sample left` : ""}` }),
      estimate.stop_rank !== null && el("p", estimate.stop_rank ? `Review down to rank ${formatCount(estimate.stop_rank)}: below, fewer than 1 in 20 is wrong.` : "Nowhere in the ranking are more than 1 in 20 wrong."),
    ].filter(Boolean);
  }
  async function rename(field) {
    const before = settings.reviewer;
    settings.reviewer = field.value.trim() || session.own;
    try { await request("progress", {}); store("reviewer", { name: settings.reviewer, instead: session.own }); } catch (error) { if (error.status === 422) { showToast(error.message, "bad"); settings.reviewer = before; } }
    field.value = settings.reviewer;
    field.blur();
    fetchChanges();
    progressSoon(50);
  }
  async function drawMore() { try { await request("draw", { count: 100 }); await openView(currentPosition()); } catch (error) { showProblem(error); } }

  // --- toolbar -------------------------------------------------------------------------------------------------
  function drawBar() {
    const by = [["label", "label"], ...(session.audited ? [["pair", "label and prediction"]] : []), ["all", "no groups"], ...session.columns.map((name) => [`column:${name}`, name]), ["random", "sample to judge"]];
    const within = [...(session.audited ? [["suspicion", "suspicion"]] : []), ["visual", session.sorted ? "similarity" : "file order"], ...(session.audited && session.sorted ? [["both", "suspicion + similarity"]] : [])];
    const search = el("input", { type: "search", placeholder: "Search ids and labels", "aria-label": "Search ids and labels", value: settings.search, on: { keydown: (e) => { if (e.key === "Enter") e.target.blur(); }, change: (e) => { settings.search = e.target.value; openView(); } } });
    const size = el("input", { type: "range", min: 32, max: 224, step: 4, value: settings.size, "aria-label": "tile size", title: "tile size (+ −)", on: { input: (e) => resize(+e.target.value), change: () => scroller.focus({ preventScroll: true }) } });
    toolbar.search = search;
    toolbar.size = size;
    const segments = [["all", "All"], ["marked", "Marked"], ["unmarked", "Unmarked"], ...(session.audited ? [["suspicious", "Suspicious"]] : []), ["unreviewed", "Not reviewed"]];
    toolbar.replaceChildren(el("h1.cut", { title: session.title }, ...cutMiddle(session.title)), dropdown("group_by", "Group by", by), dropdown("group_order", "Order groups", [["suspicion", session.audited ? "most suspicious first" : "as in the data"], ["name", "by name"]]), dropdown("sort_by", "Sort by", within),
      el("div.segments", { role: "radiogroup", "aria-label": "Show" }, ...segments.map(([value, text]) => el("button", { text, role: "radio", "aria-checked": String(settings.filter === value), on: { click: () => { settings.filter = value; drawBar(); openView(); } } }))),
      search, size, el("div.icons", icon("◐", "brighten dark images (B)", () => toggle("brighten"), settings.brighten), icon("▤", "typical images of the label (R)", () => toggle("typical"), settings.typical),
      icon({ auto: "◑", light: "☀", dark: "☾" }[settings.theme], `color theme: ${settings.theme}`, () => { settings.theme = { auto: "dark", dark: "light", light: "auto" }[settings.theme]; theme(); drawBar(); }), icon("?", "keyboard shortcuts (?)", showHelp)));
  }
  const icon = (text, title, callback, on) => el("button", { className: `icon${on ? " on" : ""}`, text, title, "aria-label": title, ...(on === undefined ? {} : { "aria-pressed": String(!!on) }), on: { click: callback } });
  function theme() {
    app.dataset.theme = settings.theme;
    saveState();
    readColors();
    for (const strip of strips.values()) strip.dirty = true;
    for (const node of sections.values()) drawTypicalRow(node);
    refresh();
  }
  function resize(size) {
    const position = currentPosition();
    settings.size = clamp(size, 32, 224);
    toolbar.size.value = settings.size;
    relayout(position);
  }
  function relayout(position = currentPosition()) {
    if (!view) return;
    computeLayout();
    restorePosition(position);
    setCurrent(current);
    refresh();
  }
  async function toggle(name) {
    const position = currentPosition();
    settings[name] = !settings[name];
    drawBar();
    if (name === "brighten") {
      session.typical_sheets = (await request("describe", { brighten: settings.brighten })).typical_sheets;
      blocks.clear(); indexOfRow.clear();
    }
    relayout(position);
  }
  function currentPosition() {
    if (!view || !layout?.shown) return null;
    const top = scroller.scrollTop, g = groupAt(top);
    let index = view.starts[g];
    eachTile(top + layout.head, top + layout.head + layout.rowStep, (i) => { if (index === view.starts[g] && top > layout.tops[g]) index = i; });
    return { view: view.view, index, name: view.names[g], head: top <= layout.tops[g] + 1 };
  }
  function restorePosition(position) {
    if (!position || !layout.shown) return;
    let g = view.names.indexOf(position.name);
    if (position.view === view.view && position.index < view.count) {
      const at = rectOf(position.index);
      if (at.g < layout.shown) { scroller.scrollTop = position.head ? layout.tops[at.g] : at.y - layout.head; return; }
      g = at.g;
    }
    if (g >= 0 && g < layout.shown) scroller.scrollTop = layout.tops[g];
  }
  function saveState() {
    if (!session) return;
    const state = { settings: { ...settings }, position: currentPosition() }, text = JSON.stringify(state);
    if (text !== saveState.last) { saveState.last = text; request("save_state", { state }).catch(() => {}); }
  }

  // --- marking -------------------------------------------------------------------------------------------------
  function markOf(index) { const at = cell(index); return at ? at.block.marks[at.i] : NONE; }
  function applyMark(indices, mark) {
    const marks = [];
    for (const index of indices) {
      const at = cell(index);
      if (!at) continue;
      const { block, i } = at, wanted = mark instanceof Map ? mark.get(index) : mark, code = wanted === block.given[i] ? NONE : wanted;
      if (block.marks[i] === code) continue;
      block.marks[i] = code;
      marks.push({ row: block.rows[i], sample_id: block.ids[i], mark: code, revision: block.revisions[i] });
      redraw(index);
    }
    if (marks.length) enqueueChange({ kind: "marks", marks });
    return marks.length;
  }
  function targets() { return selected.size ? [...selected].sort((a, b) => a - b) : current >= 0 ? [current] : []; }
  /** Loads the samples of a selection that were not on the screen. */
  async function loadBlocks(list) {
    const of = view.view, missing = [...new Set(list.filter((index) => !cell(index)).map((index) => Math.floor(index / session.block_size)))];
    if (missing.length > MAX_BLOCKS - 20) { showToast(`${plural(list.length, "image")} are too many at once: select fewer.`, "bad"); return false; }
    try { for (const number of missing) if (!blocks.has(number)) storeBlock(number, await request("block", { view: of, number, brighten: settings.brighten })); } catch (error) { showToast(error.message, "bad"); return false; }
    return view.view === of;
  }
  async function markTargets(mark) {
    const list = targets();
    if (!list.length) { showToast("Point at an image first, or move to one with the arrow keys."); return; }
    if (!targetsVisible() || (list.some((index) => !cell(index)) && !(await loadBlocks(list)))) return;
    const all = list.every((index) => markOf(index) === mark);
    applyMark(list, all ? NONE : mark);
    if (mark >= 0 && !all) rememberLabel(mark);
    setCurrent(current);
  }
  async function acceptSuggestions() {
    const list = targets(), pairs = [];
    if (!targetsVisible() || (list.some((index) => !cell(index)) && !(await loadBlocks(list)))) return;
    for (const index of list) {
      const { block, i } = cell(index), other = [block.suggested[i], block.predicted[i]].find((code) => code >= 0 && code !== block.given[i]);
      if (other !== undefined) pairs.push([index, other]);
    }
    for (const [, code] of pairs.slice(0, 9)) rememberLabel(code);
    const done = pairs.length && (applyMark(pairs.map(([index]) => index), new Map(pairs)) || 1);
    if (!done) showToast(list.length ? "No other label is suggested here. Press L to choose any label." : "Point at an image first.");
    setCurrent(current);
  }
  function rememberLabel(code) {
    const at = recent.indexOf(code);
    if (at >= 0) recent.splice(at, 1);
    recent.unshift(code);
    recent.length = Math.min(recent.length, 9);
  }
  async function reviewGroup(g = currentGroup()) {
    if (!layout.shown) return;
    enqueueChange({ kind: "review_group", view: view.view, group: g });
    if (g + 1 < layout.shown) { goToGroup(g + 1); showToast(`Reviewed: ${view.names[g]}. Next: ${view.names[g + 1]}`); } else showToast(`Reviewed: ${view.names[g]}. That was the last group.`);
  }
  function enqueueChange(item) {
    queue.push({ ...item, request_id: `${windowId}-${requestCount++}` }); // the server ignores a repeated request with the same id
    saveQueue();
    send();
  }
  function saveQueue() { store(`queue:${windowId}`, queue.length ? queue : null); }
  function takeUnsaved() {
    const found = [], prefix = `mlfix-review:${session.id}:queue:`;
    try {
      for (const name of Object.keys(localStorage).filter((one) => one.startsWith(prefix) && one !== prefix + windowId)) {
        for (const item of JSON.parse(localStorage.getItem(name)) || []) if (item?.request_id && (item.kind !== "marks" || Array.isArray(item.marks))) found.push(item);
        localStorage.removeItem(name);
      }
    } catch { /* unreadable entries are dropped */ }
    return found;
  }
  function unsavedCount() { return queue.reduce((n, item) => n + (item.marks?.length || 1), 0); }
  async function send() {
    if (sending || closed) return;
    sending = true;
    drawStatus();
    while (queue.length && !closed) {
      const item = queue[0];
      try {
        const payload = item.kind === "marks"
          ? { marks: item.marks.map((one) => ({ sample_id: one.sample_id, new_label: one.mark === NONE ? null : labelOf(one.mark), base_revision: one.revision })) }
          : { view: item.view, group: item.group };
        payload.request_id = item.request_id;
        const response = await request(item.kind, payload);
        queue.shift();
        problem = "";
        applyResponse(response, item);
      } catch (error) {
        if (error.status && error.status < 500 && error.status !== 403) { queue.shift(); showToast(error.message, "bad"); if (item.kind === "marks") reload(item.marks.map((one) => one.row)); }
        else { problem = error.status ? error.message : `${connection.kernel ? "The kernel" : "The server"} cannot be reached.`; drawStatus(); await new Promise((done) => schedule(done, 2000)); }
      }
      saveQueue();
    }
    sending = false;
    drawStatus();
    progressSoon();
  }
  function applyResponse(response, item) {
    steps = response.steps;
    // Marks still in the queue are based on this page's own changes, but not on those of others.
    const theirs = new Set((response.conflicts || []).map((one) => one.row)), own = new Map();
    response.rows.forEach((row, n) => { if (!theirs.has(row)) own.set(row, response.revisions[n]); });
    for (const queued of queue) for (const one of queued.marks || []) if (own.has(one.row)) one.revision = own.get(one.row);
    update(response);
    if (response.conflicts?.length) {
      for (const one of response.conflicts) { conflicts = conflicts.filter((other) => other.row !== one.row); conflicts.push(one); }
      drawTray();
    }
    if (item.kind === "undo" || item.kind === "redo") {
      const n = response.saved || response.reviewed;
      showToast(response.message && !n ? response.message : `${item.kind === "undo" ? "Undone" : "Redone"}: ${response.saved || !n ? plural(n, "mark") : `${plural(n, "image")} marked as reviewed`}`);
      const index = indexOfRow.get(response.first_row);
      if (index !== undefined) { setCurrent(index); scrollToTile(index); }
    }
  }
  function update(response) {
    const pending = new Set(queue.flatMap((item) => (item.marks || []).map((one) => one.row)));
    response.rows.forEach((row, n) => {
      const index = indexOfRow.get(row), at = index === undefined ? null : cell(index);
      if (!at) return;
      at.block.flags[at.i] = response.flags[n];
      if (!pending.has(row)) { at.block.marks[at.i] = response.marks[n]; at.block.revisions[at.i] = response.revisions[n]; }
      redraw(index);
    });
  }
  async function reload(rows) {
    for (const row of rows) { const index = indexOfRow.get(row); if (index !== undefined) blocks.delete(Math.floor(index / session.block_size)); }
    for (const strip of strips.values()) strip.dirty = true;
    refresh();
  }
  function addLabels(response) { response.labels.forEach((name, i) => { session.labels[response.known_labels + i] = name; }); }
  function drawStatus() {
    const n = unsavedCount();
    saved.className = `saved${problem ? " bad" : ""}`;
    saved.replaceChildren(problem ? `${problem} ${plural(n, "change")} not saved yet; trying again.` : n ? "Saving…" : "All changes saved",
      el("button.plain", { text: "↶", title: "undo (Z)", "aria-label": "undo", disabled: !steps[0], on: { click: () => enqueueChange({ kind: "undo" }) } }),
      el("button.plain", { text: "↷", title: "redo (Y)", "aria-label": "redo", disabled: !steps[1], on: { click: () => enqueueChange({ kind: "redo" }) } }));
  }
  function showProblem(error) { problem = error.message; drawStatus(); }
  async function fetchChanges() {
    if (closed || document.hidden) return;
    try {
      const response = await request("changes", { since: knownRevision, known_labels: session.labels.length });
      addLabels(response);
      knownRevision = response.revision; // only here: the response to a mark does not include earlier changes of others
      if (response.rows.length || response.steps + "" !== steps + "") { steps = response.steps; update(response); drawStatus(); progressSoon(); }
      if (problem && !queue.length) { problem = ""; drawStatus(); }
    } catch (error) { if (error.status === 403 || !error.status) showProblem(error.status ? error : new Error("The server cannot be reached.")); }
  }
  function drawTray() {
    tray.hidden = !conflicts.length;
    if (!conflicts.length) return;
    const settle = (one, useWanted) => {
      conflicts = conflicts.filter((other) => other !== one);
      if (one.from_file && !useWanted) request("dismiss_conflicts", { rows: [one.row] }).catch(() => {});
      if (useWanted) { enqueueChange({ kind: "marks", marks: [{ row: one.row, sample_id: one.sample_id, mark: one.wanted, revision: one.revision }] }); }
      drawTray();
    };
    const markText = (code) => (code === NONE ? "no mark" : code === INVALID ? "invalid" : labelOf(code));
    const fromFile = conflicts.some((one) => one.from_file);
    tray.replaceChildren(el("b", fromFile ? `${plural(conflicts.length, "image")} marked differently in the fixes file` : `${plural(conflicts.length, "image")} changed by someone else in the meantime`),
      el("div.conflicts", ...conflicts.slice(0, 50).map((one) => el("div.conflict",
        el("span.id", { text: one.sample_id, title: one.sample_id }), el("span", { text: `${one.reviewer || "someone"}: ${markText(one.mark)}${one.time ? ` (${one.time.slice(11, 16)})` : ""}` }),
        one.wanted === null ? null : el("span", `${one.from_file ? "the file" : "you"}: ${markText(one.wanted)}`),
        el("button.plain", { text: one.from_file ? "Keep this review's" : "Keep theirs", on: { click: () => settle(one, false) } }),
        one.wanted === null ? null : el("button.plain", { text: one.from_file ? "Use the file's" : "Use mine", on: { click: () => settle(one, true) } })))),
      el("button.plain", { text: fromFile ? "Keep all of this review's" : "Keep all of theirs", on: { click: () => { const rows = conflicts.filter((one) => one.from_file).map((one) => one.row); if (rows.length) request("dismiss_conflicts", { rows }).catch(() => {}); conflicts = []; drawTray(); } } }));
  }

  // --- current tile, selection, suggestions ------------------------------------------------------------------------------
  function setCurrent(index) {
    current = index;
    cursor.hidden = index < 0 || !layout;
    if (cursor.hidden) { drawBrushes(); return; }
    const { x, y } = rectOf(index);
    Object.assign(cursor.style, { left: `${x}px`, top: `${y}px`, width: `${layout.size}px`, height: `${layout.size}px` });
    drawBrushes();
    const at = cell(index);
    if (at) {
      const { block, i } = at, other = block.predicted[i] >= 0 && block.predicted[i] !== block.given[i] ? `, predicted ${labelOf(block.predicted[i])}` : "";
      const message = `${block.ids[i]}: ${labelOf(block.given[i]) || "no label"}${other}${block.suspicion[i] === null ? "" : `, suspicion ${percent(block.suspicion[i])}`}${block.marks[i] === NONE ? "" : `, marked ${labelOf(block.marks[i])}`}`;
      clearTimeout(setCurrent.timer);
      setCurrent.timer = schedule(() => { live.textContent = message; }, 250);
    }
    if (!inspector.hidden) inspect();
  }
  function scrollToTile(index) {
    const { y } = rectOf(index), top = scroller.scrollTop, height = scroller.clientHeight;
    if (y < top + layout.head) scroller.scrollTop = y - layout.head - 4;
    else if (y + layout.rowStep > top + height) scroller.scrollTop = y + layout.rowStep - height + 4;
  }
  function select(next) {
    const before = selected;
    selected = next;
    for (const index of new Set([...before, ...selected])) if (before.has(index) !== selected.has(index)) redraw(index);
  }
  function moveCurrent(key, extend) {
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
    if (extend) { if (anchor < 0) anchor = current < 0 ? next : current; select(range(anchor, next)); } else { anchor = next; select(new Set()); }
    isHovering = false;
    setCurrent(next);
    scrollToTile(next);
  }
  function range(a, b) { const found = new Set(); for (let i = Math.min(a, b); i <= Math.max(a, b) && found.size < 20000; i++) found.add(i); return found; }
  function currentGroup() { return current >= 0 && isVisible(current) ? groupOf(current) : layout?.shown ? groupAt(scroller.scrollTop + layout.head) : NONE; }
  function suggestedLabels() {
    const found = [...(suggestions.get(currentGroup()) || [])];
    for (const code of recent) if (!found.includes(code)) found.push(code);
    return found.slice(0, 9);
  }
  function drawBrushes() {
    if (!view || !layout) return;
    const g = currentGroup();
    if (g >= 0 && !suggestions.has(g)) {
      suggestions.set(g, []);
      const of = view.view;
      request("group", { view: of, group: g }).then((response) => { if (view.view === of) { suggestions.set(g, response.suggestions); drawBrushes(); } }).catch(() => suggestions.delete(g));
    }
    const chip = (code, key, text) => el("button", { className: `chip${brush === code ? " on" : ""}${code === INVALID ? " out" : ""}`, "aria-pressed": String(brush === code), title: `${key} marks the current image; click to use as the brush`, on: { click: () => { brush = code; drawBrushes(); } } }, el("kbd", key), el("span.cut", ...cutMiddle(text)));
    const other = el("button.chip", { title: "any other label (L)", on: { click: openLabelDialog } }, el("kbd", "L"), "other…");
    const nodes = [chip(INVALID, "X", "invalid"), other, ...suggestedLabels().map((code, n) => chip(code, String(n + 1), labelOf(code)))];
    if (brush >= 0 && !suggestedLabels().includes(brush)) nodes.splice(2, 0, chip(brush, "·", labelOf(brush)));
    const same = nodes.map((node) => node.className + node.textContent).join("|");
    if (same !== brushes.same) { brushes.same = same; brushes.replaceChildren(...nodes); }
  }

  // --- dialogs -------------------------------------------------------------------------------------------------
  const labelInput = el("input", { type: "search", placeholder: "Label", "aria-label": "label", on: { input: () => fillLabelDialog(0) } }), labelList = el("div.labels", { role: "listbox" });
  let labelIndex = 0, labelMatches = [];
  labelDialog.append(el("p.quiet", "Type part of a label; Enter chooses the highlighted one."), labelInput, labelList);
  labelDialog.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "ArrowDown" || e.key === "ArrowUp") { e.preventDefault(); fillLabelDialog(clamp(labelIndex + (e.key === "ArrowDown" ? 1 : -1), 0, Math.max(labelMatches.length - 1, 0))); }
    if (e.key === "Escape") { e.preventDefault(); labelDialog.close(); }
    if (e.key === "Enter") { e.preventDefault(); chooseLabel(labelMatches[labelIndex]); }
  });
  function openLabelDialog() { labelInput.value = ""; fillLabelDialog(0); labelDialog.showModal(); labelInput.focus(); }
  function fillLabelDialog(at = labelIndex) {
    labelIndex = at;
    const terms = labelInput.value.toLowerCase().split(/\s+/).filter(Boolean);
    const score = (name) => (name.toLowerCase().startsWith(terms[0] || "") ? 0 : 1);
    labelMatches = session.labels.map((name, code) => ({ name, code })).filter(({ name }) => terms.every((term) => name.toLowerCase().includes(term))).sort((a, b) => score(a.name) - score(b.name) || a.name.localeCompare(b.name, "en", { numeric: true })).slice(0, 60);
    const fresh = labelInput.value.trim();
    if (session.allow_new_labels && fresh && !session.labels.includes(fresh)) labelMatches.push({ name: fresh, code: "new" });
    labelList.replaceChildren(...labelMatches.map((one, n) => {
      const canvas = el("canvas", { width: 148, height: 36 }), missing = new Set();
      if (one.code !== "new") for (let i = 0; i < 4 && (session.typical[one.code]?.[i] ?? -1) >= 0; i++) drawTypical(canvas.getContext("2d"), one.code, i, i * 37, 0, 36, missing);
      for (const name of missing) loadSheet(name);
      return el("button", { className: n === labelIndex ? "now" : "", role: "option", "aria-selected": String(n === labelIndex), on: { click: () => chooseLabel(one) } }, el("span", { text: one.code === "new" ? `new label: ${one.name}` : one.name }), canvas);
    }));
    if (!labelMatches.length) labelList.append(el("p.quiet", "No label matches."));
    labelList.children[labelIndex]?.scrollIntoView?.({ block: "nearest" });
    startLoading();
  }
  async function chooseLabel(one) {
    if (!one) return;
    labelDialog.close();
    let code = one.code;
    if (code === "new") {
      try { const response = await request("add_label", { name: one.name, known_labels: session.labels.length }); addLabels(response); code = response.code; } catch (error) { showToast(error.message, "bad"); return; }
    }
    rememberLabel(code);
    if (targets().length) markTargets(code);
    else { brush = code; drawBrushes(); showToast(`Clicking now marks as ${labelOf(code)}.`); }
    scroller.focus();
  }
  function showHelp() {
    helpDialog.replaceChildren(el("button.close", { text: "×", "aria-label": "close", on: { click: () => helpDialog.close() } }), el("h2", "Keyboard and mouse"), el("dl", {}, ...KEYS.flatMap(([key, message]) => [el("dt", key), el("dd", message)])),
      el("p.quiet", "“All changes saved” means that every mark is on disk. On a touch screen, tap to mark and hold to show the full image."));
    helpDialog.showModal();
  }
  helpDialog.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "?") helpDialog.close(); });
  for (const dialog of [labelDialog, helpDialog]) { dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); }); dialog.addEventListener("close", () => scroller.focus()); }
  function brightenImage(image) {
    const ctx = el("canvas", { width: 16, height: 16 }).getContext("2d");
    ctx.drawImage(image, 0, 0, 16, 16);
    const data = ctx.getImageData(0, 0, 16, 16).data;
    let light = 1;
    for (let i = 0; i < data.length; i += 4) light += (data[i] + data[i + 1] + data[i + 2]) / 768;
    image.style.filter = settings.brighten && light < 105 ? `brightness(${Math.min(105 / light, 4)})` : "";
  }
  let inspected = NONE, imageUrl = null;
  async function inspect() {
    const at = current >= 0 ? cell(current) : null;
    if (!at) { inspector.replaceChildren(el("p.quiet", "Point at an image.")); return; }
    const { block, i } = at, row = block.rows[i], given = block.given[i], other = block.suggested[i] >= 0 && block.suggested[i] !== given ? block.suggested[i] : block.predicted[i];
    const lines = [["given", labelOf(given) || "(no label)"], ...(other >= 0 ? [["suggested", other === given ? "as given" : labelOf(other)]] : []), ...(block.suspicion[i] === null ? [] : [["suspicion", percent(block.suspicion[i])]]), ...(block.marks[i] === NONE ? [] : [["marked", labelOf(block.marks[i])]])];
    if (inspected !== row) {
      inspected = row;
      inspector.replaceChildren(el("button.close", { text: "×", "aria-label": "close", on: { click: () => { inspector.hidden = true; } } }), el("div.big"), el("p.id"), el("div.typical-rows"), el("dl"));
      const [sample, image] = await Promise.all([request("sample", { row }).catch(() => ({ details: {} })), connection.image("images", row).catch(() => null)]);
      if (inspected !== row || closed) return;
      inspector.sample = sample;
      if (imageUrl) URL.revokeObjectURL(imageUrl);
      imageUrl = image && URL.createObjectURL(image);
      if (imageUrl) inspector.querySelector(".big").replaceChildren(el("img", { src: imageUrl, alt: "", on: { load: (e) => brightenImage(e.target) } }));
    }
    const d = inspector.sample || { details: {} };
    if (settings.group_by === "random") d.details = {};
    if (d.row === row && d.reviewer && block.marks[i] !== NONE) lines.push(["by", `${d.reviewer}, ${d.time.replace("T", " ").replace("Z", " UTC")}`], ...(d.note ? [["note", d.note]] : []));
    inspector.querySelector(".id").textContent = block.ids[i];
    inspector.querySelector("dl").replaceChildren(...[...lines, ...(d.row === row ? Object.entries(d.details).map(([k, v]) => [k.replaceAll("_", " "), String(v)]) : [])].flatMap(([k, v]) => [el("dt", k), el("dd", v)]));
    const typicalRows = [];
    for (const code of [given, other].filter((code, n, all) => code >= 0 && all.indexOf(code) === n)) {
      const canvas = el("canvas", { width: 296, height: 48 }), missing = new Set();
      for (let n = 0; n < 6 && (session.typical[code]?.[n] ?? -1) >= 0; n++) drawTypical(canvas.getContext("2d"), code, n, n * 50, 0, 48, missing);
      for (const name of missing) loadSheet(name);
      typicalRows.push(el("p.quiet", `typical ${labelOf(code)}`), canvas);
    }
    inspector.querySelector(".typical-rows").replaceChildren(...typicalRows);
    startLoading();
  }

  // --- input ---------------------------------------------------------------------------------------------------
  function tileAtPointer(e) {
    const bounds = scroller.getBoundingClientRect(), y = e.clientY - bounds.top, x = e.clientX - bounds.left;
    if (!layout || y < layout.head - 8 || y > scroller.clientHeight || x < 0 || x > scroller.clientWidth) return NONE;
    return tileAt(x, y + scroller.scrollTop);
  }
  let hover = null; // position of the mouse over the tiles
  function isVisible(index) {
    const y = rectOf(index).y - scroller.scrollTop;
    return y > layout.head - 8 - layout.size * 0.7 && y < scroller.clientHeight - layout.size * 0.3;
  }
  /** A tile that is not on the screen is not changed: it is scrolled into view first. */
  function targetsVisible() {
    if (selected.size || current < 0 || isVisible(current)) return true;
    scrollToTile(current);
    showToast("Scrolled into view: press again.");
    return false;
  }
  let touch = null, isHovering = false;
  content.addEventListener("pointerdown", (e) => {
    if (e.button !== 0 || e.target.closest("header")) return;
    const index = tileAtPointer(e);
    if (e.pointerType === "touch") {
      touch = { index, x: e.clientX, y: e.clientY, held: schedule(() => { if (touch) { touch.long = true; setCurrent(touch.index); inspector.hidden = false; inspect(); } }, 500) };
      return;
    }
    scroller.focus({ preventScroll: true });
    if (index < 0) { select(new Set()); return; }
    e.preventDefault();
    if (e.shiftKey && anchor >= 0) { const span = [...range(anchor, index)]; loadBlocks(span).then((good) => { if (good) applyMark(span, brush); }); setCurrent(index); return; }
    if ((e.ctrlKey || e.metaKey)) { const next = new Set(selected); if (!next.delete(index)) next.add(index); select(next); anchor = index; setCurrent(index); return; }
    if (!cell(index)) return;
    select(new Set());
    stroke = { mark: markOf(index) === brush || (markOf(index) !== NONE && brush === INVALID) ? NONE : brush, done: new Map(), x: e.clientX, y: e.clientY };
    content.setPointerCapture?.(e.pointerId);
    paintTile(index);
    anchor = index;
    setCurrent(index);
  });
  function paintTile(index) {
    const at = index >= 0 ? cell(index) : null;
    if (!at || stroke.done.has(index)) return;
    const { block, i } = at, code = stroke.mark === block.given[i] ? NONE : stroke.mark;
    stroke.done.set(index, block.marks[i]);
    block.marks[i] = code;
    redraw(index);
  }
  content.addEventListener("pointermove", (e) => {
    if (e.pointerType === "touch") { if (touch && Math.hypot(e.clientX - touch.x, e.clientY - touch.y) > 9) { clearTimeout(touch.held); touch = null; } return; }
    if (stroke) {
      const far = Math.hypot(e.clientX - stroke.x, e.clientY - stroke.y), n = Math.max(1, Math.ceil(far / 12));
      for (let k = 1; k <= n; k++) paintTile(tileAtPointer({ clientX: stroke.x + ((e.clientX - stroke.x) * k) / n, clientY: stroke.y + ((e.clientY - stroke.y) * k) / n }));
      stroke.x = e.clientX; stroke.y = e.clientY;
      return;
    }
    hover = { clientX: e.clientX, clientY: e.clientY };
    const index = e.target.closest("header") ? NONE : tileAtPointer(e);
    if (index !== current && !selected.size && (index >= 0 || isHovering)) { isHovering = index >= 0; setCurrent(index); }
  });
  scroller.addEventListener("pointerleave", () => { hover = null; if (isHovering && !stroke && !selected.size) { isHovering = false; setCurrent(NONE); } });
  function autoScroll() { // dragging at an edge scrolls
    if (!stroke) return;
    const bounds = scroller.getBoundingClientRect(), low = stroke.y > bounds.bottom - 24, high = stroke.y < bounds.top + layout.head;
    if (!low && !high) return;
    scroller.scrollTop += low ? 12 : -12;
    paintTile(tileAtPointer({ clientX: stroke.x, clientY: clamp(stroke.y, bounds.top + layout.head, bounds.top + scroller.clientHeight - 4) }));
  }
  function endStroke() {
    if (!stroke) return;
    const { done, mark } = stroke;
    stroke = null;
    const marks = [];
    for (const [index, before] of done) {
      const at = cell(index);
      if (at && before !== at.block.marks[at.i]) marks.push({ row: at.block.rows[at.i], sample_id: at.block.ids[at.i], mark: at.block.marks[at.i], revision: at.block.revisions[at.i] });
    }
    if (mark >= 0) rememberLabel(mark);
    if (marks.length) enqueueChange({ kind: "marks", marks });
    setCurrent(current);
  }
  content.addEventListener("pointerup", (e) => {
    if (e.pointerType === "touch") {
      if (!touch) return;
      clearTimeout(touch.held);
      const { index, long } = touch;
      touch = null;
      if (!long && index >= 0 && cell(index)) { setCurrent(index); anchor = index; applyMark([index], markOf(index) !== NONE ? NONE : brush); }
      return;
    }
    endStroke();
  });
  content.addEventListener("pointercancel", () => { if (touch) clearTimeout(touch.held); touch = null; endStroke(); });
  content.addEventListener("contextmenu", (e) => { if (touch) e.preventDefault(); });
  content.addEventListener("dragstart", (e) => e.preventDefault());

  function key(e) {
    if (!view || labelDialog.open || helpDialog.open) return;
    const field = e.target.matches?.("input:not([type=range]), select, textarea");
    if (e.target.type === "range" && /^(Arrow|Home|End|Page)/.test(e.key)) { e.stopPropagation(); return; }
    if (field) { if (e.key === "Enter" && e.target.className === "who") e.target.blur(); if (e.key === "Escape") { e.target.blur(); scroller.focus(); } e.stopPropagation(); return; }
    if (e.target.closest?.("button") && (e.key === "Enter" || e.key === " ")) { e.stopPropagation(); return; }
    const letter = e.key.length === 1 ? e.key.toLowerCase() : e.key, command = e.ctrlKey || e.metaKey;
    let used = true;
    if (e.altKey) used = false;
    else if (command && letter === "z") enqueueChange({ kind: e.shiftKey ? "redo" : "undo" });
    else if (command && letter === "y") enqueueChange({ kind: "redo" });
    else if (command && letter === "a") { const g = currentGroup(); if (g >= 0) { select(range(view.starts[g], view.starts[g + 1] - 1)); if (current < 0) setCurrent(view.starts[g]); } } else if (command) used = false;
    else if (/^(Arrow|Home$|End$)/.test(e.key)) moveCurrent(e.key, e.shiftKey);
    else if (letter === "x" || letter === "Delete") markTargets(INVALID);
    else if (letter === "Backspace" || letter === "u") { const list = targets(); if (targetsVisible()) loadBlocks(list).then((good) => { if (good) applyMark(list, NONE); }); } else if (letter === "Enter") acceptSuggestions();
    else if (/^[1-9]$/.test(letter)) { const code = suggestedLabels()[+letter - 1]; if (code === undefined) showToast("No label has this number. Press L to choose any label."); else markTargets(code); } else if (letter === "l") openLabelDialog();
    else if (letter === "z") enqueueChange({ kind: "undo" });
    else if (letter === "y") enqueueChange({ kind: "redo" });
    else if (letter === "f") reviewGroup();
    else if (letter === "n" || letter === "p") goToGroup(clamp(currentGroup() + (letter === "n" ? 1 : -1), 0, layout.shown - 1));
    else if (letter === " ") { inspector.hidden = !inspector.hidden; inspected = NONE; inspect(); } else if (letter === "PageDown" || letter === "PageUp") scroller.scrollTop += (letter === "PageDown" ? 1 : -1) * (scroller.clientHeight - layout.head - 30);
    else if (letter === "+" || letter === "=") resize(settings.size + 12);
    else if (letter === "-") resize(settings.size - 12);
    else if (letter === "s" || letter === "/") toolbar.search.focus();
    else if (letter === "g") groupSearch.focus();
    else if (letter === "r") toggle("typical");
    else if (letter === "b") toggle("brighten");
    else if (letter === "?") showHelp();
    else if (letter === "Escape") { select(new Set()); inspector.hidden = true; } else used = false;
    if (used) { e.preventDefault(); e.stopPropagation(); }
  }
  app.addEventListener("keydown", key);
  app.addEventListener("click", (e) => { if (e.detail && e.target.closest("button") && !e.target.closest("dialog")) scroller.focus({ preventScroll: true }); });
  const onDocumentKey = (e) => { if (document.activeElement === document.body && options.whole) key(e); };
  document.addEventListener("keydown", onDocumentKey);
  scroller.addEventListener("scroll", () => { if (isHovering && hover && !stroke && !selected.size) setCurrent(tileAtPointer(hover)); refresh(); }, { passive: true });

  // --- samples seen ----------------------------------------------------------------------------------
  // A sample counts as seen once it was on the screen and scrolled out of it, for until then it may still be marked. In the
  // sample to judge only scrolling down counts, so that the judged part has no gaps.
  function tick() {
    if (!view || document.hidden || closed || !layout.shown) { ticksOnScreen = new Map(); return; }
    const top = scroller.scrollTop, now = new Map(), random = settings.group_by === "random";
    eachTile(top + layout.head - layout.rowStep / 2, top + scroller.clientHeight - layout.size * 0.6, (index) => {
      const at = cell(index);
      if (!at || !bitmaps.has(sheetOf(at.block, at.i).name)) return;
      const ticks = (ticksOnScreen.get(index) || 0) + 1;
      now.set(index, ticks);
      if (ticks >= SEEN_TICKS && (random || !(at.block.flags[at.i] & 1))) leaving.set(index, at.block.rows[at.i]);
    });
    for (const [index, row] of leaving) {
      if (now.has(index) || (random && rectOf(index).y + layout.size > top + layout.head)) continue;
      leaving.delete(index);
      const at = cell(index);
      if (at && !random) at.block.flags[at.i] |= 1;
      (random ? seenRandomRows : seenRows).push(row);
    }
    ticksOnScreen = now;
  }
  async function sendSeen() {
    for (const [list, random] of [[seenRows, false], [seenRandomRows, true]]) {
      const rows = list.splice(0, 10000);
      if (rows.length) try { await request("seen", { rows, random }); progressSoon(); } catch { list.push(...rows); }
    }
  }
  const repeat = (callback, ms) => { const id = setInterval(callback, ms); return () => clearInterval(id); };
  const intervals = [repeat(tick, 400), repeat(sendSeen, 1500), repeat(fetchChanges, 2500), repeat(() => saveState(), 4000), repeat(autoScroll, 30)];
  const watcher = new ResizeObserver(() => { if (view && Math.abs(Math.max(scroller.clientWidth - 20, 120) - layout.width) > 0.5) relayout(); else refresh(); });
  watcher.observe(scroller);
  const dark = matchMedia("(prefers-color-scheme: dark)"), onThemeChange = () => theme();
  dark.addEventListener("change", onThemeChange);
  const onUnload = (e) => { endStroke(); if (unsavedCount()) { e.preventDefault(); e.returnValue = ""; } };
  const onVisible = () => { if (!document.hidden) { fetchChanges(); send(); refresh(); } };
  addEventListener("beforeunload", onUnload);
  document.addEventListener("visibilitychange", onVisible);

  async function initialize() {
    try {
      session = await request("describe", { brighten: true });
      const named = store("reviewer"), own = session.reviewer;
      settings.reviewer = own;
      if (named?.name && named.instead === own && named.name !== own) {
        settings.reviewer = named.name;
        try { session = await request("describe", { brighten: true }); } catch (error) { if (error.status !== 422) throw error; settings.reviewer = own; store("reviewer", null); }
      }
      session.own = own;
      Object.assign(settings, session.state?.settings || {}, { reviewer: settings.reviewer });
      if (settings.group_by.startsWith("column:") && !session.columns.includes(settings.group_by.slice(7))) settings.group_by = "label";
      if (!session.audited) { settings.sort_by = "visual"; if (settings.group_by === "pair") settings.group_by = "label"; if (settings.filter === "suspicious") settings.filter = "all"; }
      if (!settings.brighten) session.typical_sheets = (await request("describe", { brighten: false })).typical_sheets;
      steps = session.steps;
      knownRevision = session.revision;
      app.dataset.theme = settings.theme;
      drawBar();
      conflicts = session.conflicts;
      drawTray();
      queue = takeUnsaved();
      saveQueue();
      if (queue.length) showToast(`${plural(unsavedCount(), "mark")} that could not be saved before ${unsavedCount() === 1 ? "is" : "are"} being sent now.`, "warn");
      for (const message of session.notes) showToast(message, "warn");
      drawStatus();
      await openView(session.state?.position);
      send();
      scroller.focus({ preventScroll: true });
    } catch (error) {
      empty.hidden = false;
      empty.replaceChildren(el("p", { text: error.status === 403 ? error.message : `${error.message || error}. Trying again…` }));
      if (error.status !== 403) schedule(initialize, 2500);
    }
  }
  initialize();
  root.review = {
    painted() {
      if (view && !layout.shown) return true;
      const first = Math.floor(scroller.scrollTop / STRIP), last = Math.floor(Math.min(scroller.scrollTop + scroller.clientHeight, layout?.height) / STRIP);
      for (let k = first; k <= last; k++) { const strip = strips.get(k); if (!strip || strip.dirty || strip.missing.size) return false; }
      return !!view && !app.classList.contains("busy");
    },
    ready: () => root.review.painted() && !loading.size && ![...strips.values()].some((strip) => strip.dirty || strip.missing.size),
    saved: () => !unsavedCount() && !sending, view: () => view, revision: () => knownRevision, settings: () => ({ ...settings }), current: () => current, problem: () => problem,
    rect(index) { const { x, y } = rectOf(index), at = content.getBoundingClientRect(); return { x: at.left + x + layout.size / 2, y: at.top + y + layout.size / 2, top: y, size: layout.size }; },
    sample(index) { const at = cell(index); return at && { id: at.block.ids[at.i], row: at.block.rows[at.i], mark: labelOf(at.block.marks[at.i]), given: labelOf(at.block.given[at.i]), suggested: labelOf(at.block.suggested[at.i]), suspicion: at.block.suspicion[at.i], flags: at.block.flags[at.i] }; },
    visible() { const found = []; eachTile(scroller.scrollTop + layout.head, scroller.scrollTop + scroller.clientHeight - layout.size, (index) => found.push(index)); return found; },
    scroller, layout: () => layout, counts: () => ({ blocks: blocks.size, bitmaps: bitmaps.size, strips: strips.size }),
  };
  return () => {
    closed = true;
    for (const stop of intervals) stop();
    for (const id of timers) clearTimeout(id);
    watcher.disconnect();
    dark.removeEventListener("change", onThemeChange);
    removeEventListener("beforeunload", onUnload);
    document.removeEventListener("visibilitychange", onVisible);
    document.removeEventListener("keydown", onDocumentKey);
    for (const image of bitmaps.values()) image.close();
    connection.close();
    root.replaceChildren();
  };
}

const position = globalThis.document?.querySelector("[data-mlfix-review]");
if (position) {
  if (location.search) history.replaceState(null, "", location.pathname); // remove the token from the address bar
  start(position, httpConnection(), { whole: true });
}

export default {
  render({ model, el: root }) { return start(root, kernelConnection(model), { height: model.get("height") }); },
};
