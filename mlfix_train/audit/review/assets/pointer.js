// Mouse, pen and touch. The tile under the mouse is the pointed one, unless the arrow keys moved it: then the mouse has to
// move by more than a twitch.

import { clamp, INVALID, NONE } from "./elements.js";

const TWITCH = 8; // CSS pixels

export function addPointer(page) {
  let stroke = null,
    last = null; // position of the mouse
  let touch = null;
  page.content.addEventListener("pointerdown", (e) => {
    if (e.button !== 0 || e.target.closest("header")) return;
    const index = page.tileAtPointer(e);
    if (e.pointerType === "touch") {
      touch = {
        index,
        x: e.clientX,
        y: e.clientY,
        held: page.schedule(() => {
          if (touch) {
            touch.long = true;
            page.setCurrent(touch.index);
            page.showInspector(true);
            page.inspect();
          }
        }, 500),
      };
      return;
    }
    page.scroller.focus({ preventScroll: true });
    if (index < 0) {
      page.select(new Set());
      return;
    }
    e.preventDefault();
    if (e.shiftKey && page.anchor >= 0 && !page.wasJustDisarmed()) {
      const span = [...page.range(page.anchor, index)];
      page.loadBlocks(span).then((good) => {
        if (good) page.applyMark(span, page.brush);
      });
      page.setCurrent(index);
      return;
    }
    if (e.ctrlKey || e.metaKey) {
      const next = new Set(page.selected);
      if (!next.delete(index)) next.add(index);
      page.select(next);
      page.anchor = index;
      page.setCurrent(index);
      return;
    }
    if (!page.cell(index) || page.wasJustDisarmed()) return;
    page.select(new Set());
    stroke = {
      group: page.groupOf(index),
      mark:
        page.markOf(index) === page.brush || (page.markOf(index) !== NONE && page.brush === INVALID)
          ? NONE
          : page.brush,
      done: new Map(),
      x: e.clientX,
      y: e.clientY,
    };
    if (stroke.mark >= 0) page.useBrush(index);
    page.content.setPointerCapture?.(e.pointerId);
    paintTile(index);
    page.anchor = index;
    page.setCurrent(index);
  });
  function paintTile(index) {
    const at = index >= 0 ? page.cell(index) : null;
    if (!at || stroke.done.has(index) || (stroke.mark >= 0 && page.groupOf(index) !== stroke.group)) return;
    const { block, i } = at,
      code = stroke.mark === block.given[i] ? NONE : stroke.mark;
    stroke.done.set(index, block.marks[i]);
    block.marks[i] = code;
    page.redraw(index);
  }
  page.content.addEventListener("pointermove", (e) => {
    if (e.pointerType === "touch") {
      if (touch && Math.hypot(e.clientX - touch.x, e.clientY - touch.y) > 9) {
        clearTimeout(touch.held);
        touch = null;
      }
      return;
    }
    if (stroke) {
      const far = Math.hypot(e.clientX - stroke.x, e.clientY - stroke.y),
        n = Math.max(1, Math.ceil(far / 12));
      for (let k = 1; k <= n; k++)
        paintTile(
          page.tileAtPointer({
            clientX: stroke.x + ((e.clientX - stroke.x) * k) / n,
            clientY: stroke.y + ((e.clientY - stroke.y) * k) / n,
          }),
        );
      stroke.x = e.clientX;
      stroke.y = e.clientY;
      return;
    }
    const from = last;
    last = page.hover = { clientX: e.clientX, clientY: e.clientY };
    page.showArmed();
    if (page.held) {
      page.held.from ??= from;
      if (page.held.from && Math.hypot(e.clientX - page.held.from.clientX, e.clientY - page.held.from.clientY) < TWITCH)
        return;
      page.held = null;
    }
    const index = e.target.closest("header") ? NONE : page.tileAtPointer(e);
    if (index !== page.current && !page.selected.size && (index >= 0 || page.isHovering)) {
      page.isHovering = index >= 0;
      page.setCurrent(index);
    }
  });
  page.scroller.addEventListener("pointerleave", (e) => {
    page.hover = null;
    page.showArmed();
    // A box or the large view opened under the pointer: the tile stays the pointed one.
    if (page.inspector.contains(e.relatedTarget)) page.keepInspected();
    if (page.labelDialog.open || page.helpDialog.open || page.inspector.contains(e.relatedTarget)) return;
    if (page.isHovering && !stroke && !page.selected.size) {
      page.isHovering = false;
      page.setCurrent(NONE);
    }
  });
  function autoScroll() {
    // dragging at an edge scrolls
    if (!stroke) return;
    const bounds = page.scroller.getBoundingClientRect(),
      low = stroke.y > bounds.bottom - 24,
      high = stroke.y < bounds.top + page.layout.head;
    if (!low && !high) return;
    page.scroller.scrollTop += low ? 12 : -12;
    paintTile(
      page.tileAtPointer({
        clientX: stroke.x,
        clientY: clamp(stroke.y, bounds.top + page.layout.head, bounds.top + page.scroller.clientHeight - 4),
      }),
    );
  }
  function endStroke() {
    if (!stroke) return;
    const { done, mark } = stroke;
    stroke = null;
    const marks = [];
    for (const [index, before] of done) {
      const at = page.cell(index);
      if (at && before !== at.block.marks[at.i])
        marks.push({
          row: at.block.rows[at.i],
          sample_id: at.block.ids[at.i],
          mark: at.block.marks[at.i],
          revision: at.block.revisions[at.i],
        });
    }
    if (mark >= 0) page.rememberLabel(mark);
    if (marks.length) page.enqueueChange({ kind: "marks", marks });
    page.tellMarked(marks);
    page.setCurrent(page.current);
  }
  page.content.addEventListener("pointerup", (e) => {
    if (e.pointerType === "touch") {
      if (!touch) return;
      clearTimeout(touch.held);
      const { index, long } = touch;
      touch = null;
      if (!long && index >= 0 && page.cell(index)) {
        page.setCurrent(index);
        page.anchor = index;
        if (page.wasJustDisarmed()) return;
        const mark = page.markOf(index) !== NONE ? NONE : page.brush;
        if (mark >= 0) page.useBrush(index);
        page.applyMark([index], mark);
      }
      return;
    }
    endStroke();
  });
  page.content.addEventListener("pointercancel", () => {
    if (touch) clearTimeout(touch.held);
    touch = null;
    endStroke();
  });
  page.content.addEventListener("dragstart", (e) => e.preventDefault());
  page.content.addEventListener("contextmenu", (e) => {
    if (touch) e.preventDefault();
  });
  page.scroller.addEventListener(
    "scroll",
    () => {
      if (page.isHovering && page.hover && !stroke && !page.selected.size)
        page.setCurrent(page.tileAtPointer(page.hover));
      page.refresh();
    },
    { passive: true },
  );

  Object.assign(page, { autoScroll, endStroke });
}
