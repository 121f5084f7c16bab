// Changes on their way to the server, in order; one counts as saved when the server or kernel has confirmed that it is
// on disk.

import { el, KEEP, NONE, plural, replaceChildren } from "./elements.js";

const windowId = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`; // this window
let requestCount = 0;

export function addSaving(page) {
  function enqueueChange(item) {
    page.queue.push({ ...item, pointed: page.current, request_id: `${windowId}-${requestCount++}` }); // the server ignores a repeated request with the same id
    saveQueue();
    send();
  }
  function saveQueue() {
    page.store(`queue:${windowId}`, page.queue.length ? page.queue : null);
  }
  function takeUnsaved() {
    const found = [],
      prefix = `mlfix-review:${page.session.id}:queue:`;
    try {
      for (const name of Object.keys(localStorage).filter(
        (one) => one.startsWith(prefix) && one !== prefix + windowId,
      )) {
        for (const item of JSON.parse(localStorage.getItem(name)) || [])
          if (item?.request_id && (item.kind !== "marks" || Array.isArray(item.marks))) found.push(item);
        localStorage.removeItem(name);
      }
    } catch {
      /* unreadable entries are dropped */
    }
    return found;
  }
  function unsavedCount() {
    return page.queue.reduce((n, item) => n + (item.marks?.length || 1), 0);
  }
  async function send() {
    if (page.sending || page.closed) return;
    page.sending = true;
    drawStatus();
    while (page.queue.length && !page.closed) {
      const item = page.queue[0];
      try {
        const payload =
          item.kind === "marks"
            ? {
                marks: item.marks.map((one) => ({
                  sample_id: one.sample_id,
                  new_label: one.mark === NONE || one.mark === KEEP ? null : page.labelOf(one.mark),
                  ...(one.mark === KEEP ? { keep: true } : {}),
                  base_revision: one.revision,
                })),
                ...(item.random ? { random: true } : {}),
              }
            : { view: item.view, group: item.group, rows: item.rows };
        payload.request_id = item.request_id;
        const response = await page.request(item.kind, payload);
        page.queue.shift();
        page.problem = "";
        applyResponse(response, item);
      } catch (error) {
        if (error.status && error.status < 500 && error.status !== 403) {
          page.queue.shift();
          page.showToast(error.message, "bad");
          if (item.kind === "marks") reload(item.marks.map((one) => one.row));
        } else {
          page.problem = error.status
            ? error.message
            : `${page.connection.kernel ? "The kernel" : "The server"} cannot be reached.`;
          drawStatus();
          await new Promise((done) => page.schedule(done, 2000));
        }
      }
      saveQueue();
    }
    page.sending = false;
    drawStatus();
    page.progressSoon();
  }
  function applyResponse(response, item) {
    page.steps = response.steps;
    // Marks still in the queue are based on this page's own changes, but not on those of others.
    const theirs = new Set((response.conflicts || []).map((one) => one.row)),
      own = new Map();
    response.rows.forEach((row, n) => {
      if (!theirs.has(row)) own.set(row, response.revisions[n]);
    });
    for (const queued of page.queue)
      for (const one of queued.marks || []) if (own.has(one.row)) one.revision = own.get(one.row);
    update(response);
    if (response.conflicts?.length) {
      for (const one of response.conflicts) {
        page.conflicts = page.conflicts.filter((other) => other.row !== one.row);
        page.conflicts.push(one);
      }
      page.drawTray();
    }
    if (item.kind === "undo" || item.kind === "redo") {
      const n = response.saved || response.reviewed;
      page.showToast(
        response.message && !n
          ? response.message
          : `${item.kind === "undo" ? "Undone" : "Redone"}: ${response.saved || !n ? plural(n, "mark") : `${plural(n, "image")} marked as reviewed`}`,
      );
      const index = page.indexOfRow.get(response.first_row);
      if (index !== undefined && page.current === item.pointed) {
        page.setCurrent(index);
        page.scrollToTile(index);
      }
    }
  }
  function update(response) {
    if (response.rows.length) page.forgetDetails();
    const pending = new Set(page.queue.flatMap((item) => (item.marks || []).map((one) => one.row)));
    response.rows.forEach((row, n) => {
      const index = page.indexOfRow.get(row),
        at = index === undefined ? null : page.cell(index);
      if (!at) return;
      at.block.flags[at.i] = response.flags[n];
      if (!pending.has(row)) {
        at.block.marks[at.i] = response.marks[n];
        at.block.revisions[at.i] = response.revisions[n];
      }
      page.redraw(index);
    });
  }
  async function reload(rows) {
    for (const row of rows) {
      const index = page.indexOfRow.get(row);
      if (index !== undefined) page.blocks.delete(Math.floor(index / page.session.block_size));
    }
    for (const strip of page.strips.values()) strip.dirty = true;
    page.refresh();
  }
  function addLabels(response) {
    response.labels.forEach((name, i) => {
      page.session.labels[response.known_labels + i] = name;
    });
  }
  function drawStatus() {
    const n = unsavedCount();
    page.saved.className = `saved${page.problem ? " bad" : ""}`;
    const text = page.problem
      ? `${page.problem} ${plural(n, "change")} not saved yet; trying again.`
      : n
        ? "Saving…"
        : "All changes saved";
    if (text !== page.status.textContent) page.status.textContent = text;
    page.status.title = page.session?.fixes || "";
    replaceChildren(
      page.saved,
      page.status,
      el("button.plain", {
        text: "↶",
        title: "undo (Z)",
        "aria-label": "undo",
        disabled: !page.steps[0],
        on: { click: () => enqueueChange({ kind: "undo" }) },
      }),
      el("button.plain", {
        text: "↷",
        title: "redo (Y)",
        "aria-label": "redo",
        disabled: !page.steps[1],
        on: { click: () => enqueueChange({ kind: "redo" }) },
      }),
      el("button.plain.finish", {
        text: "Finish",
        title: "where the fixes are, and what comes next",
        on: { click: page.finish },
      }),
    );
  }
  function showProblem(error) {
    page.problem = error.message;
    drawStatus();
  }
  async function fetchChanges() {
    if (page.closed || document.hidden) return;
    try {
      const response = await page.request("changes", {
        since: page.knownRevision,
        known_labels: page.session.labels.length,
      });
      addLabels(response);
      if (response.sorted && !page.session.sorted) page.offerOrder();
      page.knownRevision = response.revision; // only here: the response to a mark does not include earlier changes of others
      if (response.rows.length || response.steps + "" !== page.steps + "") {
        page.steps = response.steps;
        update(response);
        drawStatus();
        page.progressSoon();
      }
      if (page.problem && !page.queue.length) {
        page.problem = "";
        drawStatus();
      }
    } catch (error) {
      if (error.status === 403 || !error.status)
        showProblem(error.status ? error : new Error("The server cannot be reached."));
    }
  }

  Object.assign(page, {
    enqueueChange,
    saveQueue,
    takeUnsaved,
    unsavedCount,
    send,
    addLabels,
    drawStatus,
    showProblem,
    fetchChanges,
  });
}
