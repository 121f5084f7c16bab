// The review page, in a browser and as an anywidget: its state and its elements, which the modules share as `page`.

import { httpConnection, kernelConnection } from "./connections.js";
import { el, INVALID, KEEP, NONE, plural, STRIP, UNSURE } from "./elements.js";
import { addBrushes } from "./brushes.js";
import { addConflicts } from "./conflicts.js";
import { addCursor } from "./cursor.js";
import { addFilters, VIEW_DEFAULTS } from "./filters.js";
import { addGroups } from "./groups.js";
import { addHeadings } from "./headings.js";
import { addHelp } from "./help.js";
import { addInspector } from "./inspector.js";
import { addJudge } from "./judge.js";
import { addKeyboard } from "./keyboard.js";
import { addLabels } from "./labels.js";
import { addLayout } from "./layout.js";
import { addLinks } from "./links.js";
import { addLoading } from "./loading.js";
import { addMap } from "./map.js";
import { addMarking } from "./marking.js";
import { addMatrix } from "./matrix.js";
import { addOrder } from "./order.js";
import { addPointer } from "./pointer.js";
import { addProgress } from "./progress.js";
import { addSaving } from "./saving.js";
import { addSeen } from "./seen.js";
import { addSimilar } from "./similar.js";
import { addTiles } from "./tiles.js";
import { addToolbar } from "./toolbar.js";
import { addViews } from "./views.js";

/** Builds the page in `root`; returns a function that removes it. */
export function start(root, connection, options = {}) {
  const page = {
    connection,
    options,
    session: null,
    view: null,
    closed: false,
    settings: {
      ...VIEW_DEFAULTS,
      size: 72,
      brighten: true,
      typical: true,
      theme: "auto",
    },
    blocks: new Map(),
    bitmaps: new Map(),
    indexOfRow: new Map(),
    strips: new Map(),
    sections: new Map(),
    loading: new Set(),
    suggestions: new Map(),
    recent: [],
    fittedTexts: new Map(),
    layout: null,
    current: NONE,
    anchor: NONE,
    selected: new Set(),
    brush: INVALID,
    knownRevision: 0,
    queue: [],
    sending: false,
    problem: "",
    conflicts: [],
    steps: [0, 0],
    progress: null,
    onScreen: new Set(), // tiles of the view that were on the screen, for half a second or more
    colors: {},
    ticksOnScreen: new Map(),
    leaving: new Map(),
    loadQueue: [],
    currentSideGroup: NONE,
    inspected: NONE,
    hover: null,
    isHovering: false,
    held: null, // set while the arrow keys hold the cursor
    digits: [], // labels that the digit keys set
  };
  const timers = new Set();
  const schedule = (callback, ms) => {
    const id = setTimeout(() => {
      timers.delete(id);
      if (!page.closed) callback();
    }, ms);
    timers.add(id);
    return id;
  };
  const toolbar = el("div.bar");
  const side = el("aside.side");
  const content = el("div.content");
  const cursor = el("div.cursor", { hidden: true });
  const scroller = el(
    "main.scroller",
    { tabIndex: 0, "aria-label": "images; use the arrow keys to move, ? for all keys" },
    content,
  );
  const empty = el("div.empty", { hidden: true });
  const inspector = el("aside.inspector", { hidden: true, "aria-label": "large view" });
  const brushes = el("div.brushes", { role: "toolbar", "aria-label": "suggested labels" });
  const foot = el("div.foot");
  const saved = el("span.saved"),
    status = el("span", { role: "status" });
  const selection = el("span.selection", { hidden: true });
  const tray = el("div.tray", { hidden: true, role: "alert" });
  const toasts = el("div.toasts", { role: "status" }),
    live = el("div.live", { "aria-live": "polite" }),
    hint = el("div.hint", { hidden: true, role: "note" });
  const labelDialog = el("dialog.box"),
    helpDialog = el("dialog.help");
  const app = el(
    "div.mlfix",
    { tabIndex: -1, "data-lm-suppress-shortcuts": "true" },
    toolbar,
    hint,
    el("div.middle", side, el("div.stage", scroller, empty, toasts), inspector),
    tray,
    foot,
    live,
    labelDialog,
    helpDialog,
  );
  foot.append(selection, brushes, saved);
  root.replaceChildren(app);
  if (options.height) app.style.height = `${options.height}px`;
  function store(name, value) {
    try {
      if (value === undefined)
        return JSON.parse(localStorage.getItem(`mlfix-review:${page.session.id}:${name}`) || "null");
      if (value === null) localStorage.removeItem(`mlfix-review:${page.session.id}:${name}`);
      else localStorage.setItem(`mlfix-review:${page.session.id}:${name}`, JSON.stringify(value));
    } catch {
      /* without storage the page still works */
    }
    return null;
  }
  const calibrated = () => page.session.calibrated || !!page.view?.intervals; // whether suspicion is a probability
  const labelOf = (code) =>
    ({ [INVALID]: "invalid", [UNSURE]: "unsure", [KEEP]: "as given" })[code] ??
    (code < 0 ? "" : page.session.labels[code]);
  async function request(kind, payload = {}) {
    const { status, response } = await connection.request(kind, { reviewer: page.settings.reviewer, ...payload });
    if (status === 403)
      throw Object.assign(new Error("The server was restarted: open the new link that it printed."), { status });
    if (status >= 400 && status !== 409)
      throw Object.assign(new Error([response.error, response.hint].filter(Boolean).join(": ")), { status });
    return response;
  }
  /** Shows a message for a while; `action`, if any, is a button: its text, and what a click does. */
  function showToast(message, kind = "", action = null) {
    const click = () => (toast.remove(), action.click()),
      button = action && el("button", { text: action.text, on: { click } }),
      toast = el("div", { className: `toast ${kind}` }, message, button);
    toasts.append(toast);
    while (toasts.childElementCount > 4) toasts.firstChild.remove();
    schedule(() => toast.remove(), kind || action ? 6000 : 2600);
  }

  Object.assign(page, {
    schedule,
    toolbar,
    side,
    content,
    cursor,
    scroller,
    empty,
    inspector,
    brushes,
    saved,
    status,
    hint,
    selection,
    tray,
    live,
    labelDialog,
    helpDialog,
    app,
    store,
    calibrated,
    labelOf,
    request,
    showToast,
  });
  for (const add of [
    addLayout,
    addViews,
    addLoading,
    addTiles,
    addHeadings,
    addGroups,
    addProgress,
    addToolbar,
    addFilters,
    addLinks,
    addMap,
    addJudge,
    addMarking,
    addOrder,
    addSaving,
    addConflicts,
    addCursor,
    addBrushes,
    addLabels,
    addHelp,
    addInspector,
    addSimilar,
    addMatrix,
    addPointer,
    addKeyboard,
    addSeen,
  ])
    add(page);

  const repeat = (callback, ms) => {
    const id = setInterval(callback, ms);
    return () => clearInterval(id);
  };
  const intervals = [
    repeat(page.tick, 400),
    repeat(page.sendSeen, 1500),
    repeat(page.fetchChanges, 2500),
    repeat(() => page.saveState(), 4000),
    repeat(page.writeLink, 500),
    repeat(page.autoScroll, 30),
  ];
  const watcher = new ResizeObserver(() => {
    if (page.view && Math.abs(Math.max(scroller.clientWidth - 20, 120) - page.layout.width) > 0.5) page.relayout();
    else page.refresh();
  });
  watcher.observe(scroller);
  const dark = matchMedia("(prefers-color-scheme: dark)"),
    onThemeChange = () => page.theme();
  dark.addEventListener("change", onThemeChange);
  const onUnload = (e) => {
    page.endStroke();
    if (page.unsavedCount()) {
      e.preventDefault();
      e.returnValue = "";
    }
  };
  const onVisible = () => {
    if (!document.hidden) {
      page.fetchChanges();
      page.send();
      page.refresh();
    }
  };
  addEventListener("beforeunload", onUnload);
  document.addEventListener("visibilitychange", onVisible);
  async function initialize() {
    try {
      page.session = await request("describe", { brighten: true });
      const named = store("reviewer"),
        own = page.session.reviewer;
      page.settings.reviewer = own;
      if (named?.name && named.instead === own && named.name !== own) {
        page.settings.reviewer = named.name;
        try {
          page.session = await request("describe", { brighten: true });
        } catch (error) {
          if (error.status !== 422) throw error;
          page.settings.reviewer = own;
          store("reviewer", null);
        }
      }
      page.session.own = own;
      Object.assign(page.settings, page.session.state?.settings || {}, { reviewer: page.settings.reviewer });
      const linked = page.readLink();
      if (
        page.settings.group_by.startsWith("column:") &&
        !page.session.columns.includes(page.settings.group_by.slice(7))
      )
        page.settings.group_by = "label";
      if (!page.session.audited) {
        page.settings.sort_by = "visual";
        if (["pair", "suggested"].includes(page.settings.group_by)) page.settings.group_by = "label";
        if (page.settings.filter === "suspicious") page.settings.filter = "all";
      }
      if (!page.settings.brighten)
        page.session.typical_sheets = (await request("describe", { brighten: false })).typical_sheets;
      const codes = (page.session.state?.digits || []).map((name) => page.session.labels.indexOf(name));
      page.digits = [...new Set([...codes.filter((code) => code >= 0), ...page.session.digits])].slice(0, 9);
      page.steps = page.session.steps;
      page.knownRevision = page.session.revision;
      app.dataset.theme = page.settings.theme;
      page.drawBar();
      page.showHint();
      page.conflicts = page.session.conflicts;
      page.drawTray();
      page.queue = page.takeUnsaved();
      page.saveQueue();
      if (page.queue.length)
        showToast(
          `${plural(page.unsavedCount(), "mark")} that could not be saved before ${page.unsavedCount() === 1 ? "is" : "are"} being sent now.`,
          "warn",
        );
      for (const message of page.session.notes) showToast(message, "warn");
      page.drawStatus();
      await page.openView(linked || page.session.state?.position);
      if (page.settings.docked && page.isDocked()) page.showInspector(true);
      page.send();
      scroller.focus({ preventScroll: true });
    } catch (error) {
      empty.hidden = false;
      empty.replaceChildren(
        el("p", { text: error.status === 403 ? error.message : `${error.message || error}. Trying again…` }),
      );
      if (error.status !== 403) schedule(initialize, 2500);
    }
  }
  initialize();
  root.review = {
    painted() {
      if (page.view && !page.layout.shown) return true;
      const first = Math.floor(scroller.scrollTop / STRIP),
        last = Math.floor(Math.min(scroller.scrollTop + scroller.clientHeight, page.layout?.height) / STRIP);
      for (let k = first; k <= last; k++) {
        const strip = page.strips.get(k);
        if (!strip || strip.dirty || strip.missing.size) return false;
      }
      return !!page.view && !app.classList.contains("busy");
    },
    ready: () =>
      root.review.painted() &&
      !page.loading.size &&
      ![...page.strips.values()].some((strip) => strip.dirty || strip.missing.size),
    saved: () => !page.unsavedCount() && !page.sending,
    view: () => page.view,
    revision: () => page.knownRevision,
    settings: () => ({ ...page.settings }),
    current: () => page.current,
    problem: () => page.problem,
    map: () => page.mapState(),
    rect(index) {
      const { x, y } = page.rectOf(index),
        at = content.getBoundingClientRect();
      return {
        x: at.left + x + page.layout.size / 2,
        y: at.top + y + page.layout.size / 2,
        top: y,
        size: page.layout.size,
      };
    },
    sample(index) {
      const at = page.cell(index);
      return (
        at && {
          id: at.block.ids[at.i],
          row: at.block.rows[at.i],
          mark: labelOf(at.block.marks[at.i]),
          given: labelOf(at.block.given[at.i]),
          suggested: labelOf(at.block.suggested[at.i]),
          suspicion: at.block.suspicion[at.i],
          flags: at.block.flags[at.i],
        }
      );
    },
    visible() {
      const found = [];
      page.eachTile(
        scroller.scrollTop + page.layout.head,
        scroller.scrollTop + scroller.clientHeight - page.layout.size,
        (index, x, y) => y > scroller.scrollTop + page.layout.head - 8 && found.push(index), // none below a heading
      );
      return found;
    },
    scroller,
    layout: () => page.layout,
    counts: () => ({ blocks: page.blocks.size, bitmaps: page.bitmaps.size, strips: page.strips.size }),
  };
  return () => {
    page.closed = true;
    for (const stop of intervals) stop();
    for (const id of timers) clearTimeout(id);
    watcher.disconnect();
    dark.removeEventListener("change", onThemeChange);
    removeEventListener("beforeunload", onUnload);
    document.removeEventListener("visibilitychange", onVisible);
    document.removeEventListener("keydown", page.onDocumentKey);
    for (const image of page.bitmaps.values()) image.close();
    connection.close();
    root.replaceChildren();
  };
}

const position = globalThis.document?.querySelector("[data-mlfix-review]");
if (position) {
  if (location.search) history.replaceState(null, "", location.pathname + location.hash); // remove the token from the address bar
  start(position, httpConnection(), { whole: true });
}

export default {
  render({ model, el: root }) {
    return start(root, kernelConnection(model), { height: model.get("height") });
  },
};
