// Where everything is: groups below one another, each with a heading and rows of tiles of one size. Positions are CSS
// pixels in the scrolled content.

import { BY_LABEL, clamp, el, NONE, plural } from "./elements.js";

const HEADER_HEIGHT = 44;
const TYPICAL_HEIGHT = 56;
const MAX_HEIGHT = globalThis.CSS?.supports?.("-moz-appearance:none") ? 16e6 : 30e6;

export function addLayout(page) {
  function computeLayout() {
    const width = Math.max(page.scroller.clientWidth - 20, 120),
      size = page.settings.size,
      gap = size < 56 ? 4 : 8,
      hasCaption = size >= 56;
    const lines = hasCaption ? (BY_LABEL.includes(page.settings.group_by) ? 1 : 2) : 0;
    const columns = Math.max(1, Math.floor((width + gap) / (size + gap)));
    const step = size + gap,
      rowStep = size + 5 + lines * 14 + gap,
      head = HEADER_HEIGHT + (page.hasTypical() ? TYPICAL_HEIGHT : 0);
    const tops = [0];
    let shown = 0;
    for (const count of page.view.sizes) {
      const next = tops.at(-1) + head + Math.ceil(count / columns) * rowStep + 14;
      if (next > MAX_HEIGHT) break;
      tops.push(next);
      shown++;
    }
    page.layout = { width, size, gap, lines, columns, step, rowStep, head, tops, shown, height: tops.at(-1) };
    for (const strip of page.strips.values()) strip.node.remove();
    for (const node of page.sections.values()) page.removeSection(node);
    page.strips.clear();
    page.sections.clear();
    page.fittedTexts.clear();
    page.content.style.height = `${page.layout.height + Math.max(40, page.scroller.clientHeight - head - rowStep)}px`; // so that the last group can scroll to the top
    page.content.replaceChildren(page.cursor);
    if (shown < page.view.sizes.length)
      page.content.append(
        el("p.overflow", {
          style: { top: `${page.layout.height}px` },
          text: `${plural(page.view.sizes.length - shown, "group")} do not fit on one page: search, filter, or make the tiles smaller.`,
        }),
      );
    page.empty.hidden = page.view.count > 0;
    page.empty.replaceChildren(
      el("p", {
        text: page.settings.search
          ? `Nothing matches “${page.settings.search}”.`
          : {
              marked: "Nothing is marked yet.",
              unmarked: "Everything is marked.",
              suspicious: "Nothing is suspicious.",
              unreviewed: "Everything has been reviewed.",
            }[page.settings.filter] || "There is nothing to show.",
      }),
      el("button.plain", {
        text: "Show all",
        on: {
          click: page.clearFilters,
        },
      }),
    );
    page.readColors();
  }
  function groupAt(y) {
    let low = 0,
      high = page.layout.shown - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (page.layout.tops[mid] <= y) low = mid;
      else high = mid - 1;
    }
    return low;
  }
  function groupOf(index) {
    let low = 0,
      high = page.view.sizes.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (page.view.starts[mid] <= index) low = mid;
      else high = mid - 1;
    }
    return low;
  }
  function rectOf(index) {
    const g = groupOf(index),
      i = index - page.view.starts[g];
    return {
      x: 10 + (i % page.layout.columns) * page.layout.step,
      y: page.layout.tops[g] + page.layout.head + Math.floor(i / page.layout.columns) * page.layout.rowStep,
      g,
    };
  }
  function tileAt(x, y) {
    if (!page.layout.shown || y < 0 || y > page.layout.height) return NONE;
    const g = groupAt(y),
      row = Math.floor((y - page.layout.tops[g] - page.layout.head) / page.layout.rowStep),
      column = Math.floor((x - 10) / page.layout.step);
    if (row < 0 || column < 0 || column >= page.layout.columns) return NONE;
    if (x - 10 - column * page.layout.step > page.layout.size) return NONE;
    const i = row * page.layout.columns + column;
    return i < page.view.sizes[g] ? page.view.starts[g] + i : NONE;
  }
  function eachTile(top, bottom, callback) {
    if (!page.layout.shown) return;
    for (let g = groupAt(Math.max(top, 0)); g < page.layout.shown && page.layout.tops[g] < bottom; g++) {
      const base = page.layout.tops[g] + page.layout.head,
        rows = Math.ceil(page.view.sizes[g] / page.layout.columns);
      const first = clamp(Math.floor((top - base) / page.layout.rowStep), 0, rows),
        last = clamp(Math.floor((bottom - base) / page.layout.rowStep), -1, rows - 1);
      for (
        let i = first * page.layout.columns;
        i < Math.min((last + 1) * page.layout.columns, page.view.sizes[g]);
        i++
      ) {
        callback(
          page.view.starts[g] + i,
          10 + (i % page.layout.columns) * page.layout.step,
          base + Math.floor(i / page.layout.columns) * page.layout.rowStep,
        );
      }
    }
  }
  function tileAtPointer(e) {
    const bounds = page.scroller.getBoundingClientRect(),
      y = e.clientY - bounds.top,
      x = e.clientX - bounds.left;
    if (
      !page.layout ||
      y < page.layout.head - 8 ||
      y > page.scroller.clientHeight ||
      x < 0 ||
      x > page.scroller.clientWidth
    )
      return NONE;
    return tileAt(x, y + page.scroller.scrollTop);
  }
  function isVisible(index) {
    const y = rectOf(index).y - page.scroller.scrollTop;
    return y > page.layout.head - 8 - page.layout.size * 0.7 && y < page.scroller.clientHeight - page.layout.size * 0.3;
  }

  Object.assign(page, { computeLayout, groupAt, groupOf, rectOf, eachTile, tileAtPointer, isVisible });
}
