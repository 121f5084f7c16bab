// Marks that differ from those of others, or of an edited fixes file.

import { el, INVALID, NONE, plural } from "./elements.js";

export function addConflicts(page) {
  function drawTray() {
    page.tray.hidden = !page.conflicts.length;
    if (!page.conflicts.length) return;
    const settle = (one, useWanted) => {
      page.conflicts = page.conflicts.filter((other) => other !== one);
      if (one.from_file && !useWanted) page.request("dismiss_conflicts", { rows: [one.row] }).catch(() => {});
      if (useWanted) {
        page.enqueueChange({
          kind: "marks",
          marks: [{ row: one.row, sample_id: one.sample_id, mark: one.wanted, revision: one.revision }],
        });
      }
      drawTray();
    };
    const markText = (code) => (code === NONE ? "no mark" : code === INVALID ? "invalid" : page.labelOf(code));
    const fromFile = page.conflicts.some((one) => one.from_file);
    page.tray.replaceChildren(
      el(
        "b",
        fromFile
          ? `${plural(page.conflicts.length, "image")} marked differently in the fixes file`
          : `${plural(page.conflicts.length, "image")} changed by someone else in the meantime`,
      ),
      el(
        "div.conflicts",
        ...page.conflicts
          .slice(0, 50)
          .map((one) =>
            el(
              "div.conflict",
              el("span.id", { text: one.sample_id, title: one.sample_id }),
              el("span", {
                text: `${one.reviewer || "someone"}: ${markText(one.mark)}${one.time ? ` (${one.time.slice(11, 16)})` : ""}`,
              }),
              one.wanted === null ? null : el("span", `${one.from_file ? "the file" : "you"}: ${markText(one.wanted)}`),
              el("button.plain", {
                text: one.from_file ? "Keep this review's" : "Keep theirs",
                on: { click: () => settle(one, false) },
              }),
              one.wanted === null
                ? null
                : el("button.plain", {
                    text: one.from_file ? "Use the file's" : "Use mine",
                    on: { click: () => settle(one, true) },
                  }),
            ),
          ),
      ),
      el("button.plain", {
        text: fromFile ? "Keep all of this review's" : "Keep all of theirs",
        on: {
          click: () => {
            const rows = page.conflicts.filter((one) => one.from_file).map((one) => one.row);
            if (rows.length) page.request("dismiss_conflicts", { rows }).catch(() => {});
            page.conflicts = [];
            drawTray();
          },
        },
      }),
    );
  }

  Object.assign(page, { drawTray });
}
