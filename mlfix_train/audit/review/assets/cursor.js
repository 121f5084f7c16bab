// The pointed tile and the selection.

import { clamp, el, formatCount, MAX_SELECTED, NONE, percent, plural, showControls } from "./elements.js";

export function addCursor(page) {
  function setCurrent(index) {
    page.current = index;
    page.keepBrush(index);
    page.cursor.hidden = index < 0 || !page.layout;
    if (page.cursor.hidden) {
      page.drawBrushes();
      return;
    }
    const { x, y } = page.rectOf(index);
    Object.assign(page.cursor.style, {
      left: `${x}px`,
      top: `${y}px`,
      width: `${page.layout.size}px`,
      height: `${page.layout.size}px`,
    });
    page.drawBrushes();
    const at = page.cell(index);
    if (at) {
      const { block, i } = at,
        other =
          block.predicted[i] >= 0 && block.predicted[i] !== block.given[i]
            ? `, predicted ${page.labelOf(block.predicted[i])}`
            : "";
      const message = `${block.ids[i]}: ${page.labelOf(block.given[i]) || "no label"}${other}${block.suspicion[i] === null ? "" : `, suspicion ${percent(block.suspicion[i])}`}${block.marks[i] === NONE ? "" : `, marked ${page.labelOf(block.marks[i])}`}`;
      announce(message);
    }
    if (!page.inspector.hidden) page.inspect();
  }
  /** Tells screen readers where one is; only the last of several in a row. */
  function announce(message) {
    clearTimeout(announce.timer);
    announce.timer = page.schedule(() => {
      page.live.textContent = showControls(message);
    }, 250);
  }
  function scrollToTile(index) {
    const { y } = page.rectOf(index),
      top = page.scroller.scrollTop,
      height = page.scroller.clientHeight;
    if (y < top + page.layout.head) page.scroller.scrollTop = y - page.layout.head - 4;
    else if (y + page.layout.rowStep > top + height) page.scroller.scrollTop = y + page.layout.rowStep - height + 4;
  }
  /** Scrolls by as many whole rows as fit, so that none is passed half seen. */
  function turnPage(direction) {
    const { head, rowStep } = page.layout,
      rows = Math.floor((page.scroller.clientHeight - head) / rowStep);
    page.scroller.scrollTop += direction * Math.max(rows, 1) * rowStep;
  }
  function select(next) {
    const before = page.selected;
    page.selected = next;
    for (const index of new Set([...before, ...page.selected]))
      if (before.has(index) !== page.selected.has(index)) page.redraw(index);
    page.selection.hidden = !next.size;
    page.selection.replaceChildren(
      `${formatCount(next.size)} selected`,
      el("button.plain", { text: "Clear", title: "clear the selection (Esc)", on: { click: () => select(new Set()) } }),
    );
  }
  function moveCurrent(key, extend) {
    if (!page.layout.shown) return;
    let next;
    if (page.current < 0) {
      next = NONE;
      page.eachTile(
        page.scroller.scrollTop + page.layout.head,
        page.scroller.scrollTop + page.scroller.clientHeight,
        (index) => {
          if (next < 0) next = index;
        },
      );
      if (next < 0) next = 0;
    } else {
      const g = page.groupOf(page.current),
        i = page.current - page.view.starts[g],
        c = page.layout.columns,
        end = page.view.starts[page.layout.shown] - 1;
      if (key === "ArrowRight") next = page.current + 1;
      else if (key === "ArrowLeft") next = page.current - 1;
      else if (key === "Home") next = page.view.starts[g];
      else if (key === "End") next = page.view.starts[g + 1] - 1;
      else if (key === "ArrowDown") {
        const rows = Math.ceil(page.view.sizes[g] / c);
        if (Math.floor(i / c) < rows - 1) next = Math.min(page.current + c, page.view.starts[g + 1] - 1);
        else
          next =
            g + 1 < page.layout.shown
              ? page.view.starts[g + 1] + Math.min(i % c, page.view.sizes[g + 1] - 1)
              : page.current;
      } else if (i >= c) next = page.current - c;
      else if (g > 0) {
        const rows = Math.ceil(page.view.sizes[g - 1] / c);
        next = page.view.starts[g - 1] + Math.min((rows - 1) * c + (i % c), page.view.sizes[g - 1] - 1);
      } else next = page.current;
      next = clamp(next, 0, end);
    }
    if (extend) {
      if (page.anchor < 0) page.anchor = page.current < 0 ? next : page.current;
      select(range(page.anchor, next));
    } else {
      page.anchor = next;
      select(new Set());
    }
    page.isHovering = false;
    page.held = {};
    setCurrent(next);
    scrollToTile(next);
  }
  /** Returns the tiles from one to another; none, and says what would do, where they are too many. */
  function range(a, b) {
    const count = Math.abs(a - b) + 1;
    if (count > MAX_SELECTED) {
      page.showToast(
        `${plural(count, "image")}: at most ${formatCount(MAX_SELECTED)} can be marked at once. Show fewer: “Suspicious”, a search, or groups by label and prediction.`,
        "warn",
      );
      return new Set();
    }
    return new Set(Array.from({ length: count }, (_, i) => Math.min(a, b) + i));
  }
  function currentGroup() {
    return page.current >= 0 && page.isVisible(page.current)
      ? page.groupOf(page.current)
      : page.layout?.shown
        ? page.groupAt(page.scroller.scrollTop + page.layout.head)
        : NONE;
  }

  Object.assign(page, { setCurrent, announce, scrollToTile, turnPage, select, moveCurrent, range, currentGroup });
}
