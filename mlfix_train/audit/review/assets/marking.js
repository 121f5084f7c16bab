// Marking: the pointed tile, a selection, or a whole group.

import { MAX_BLOCKS, NONE, plural } from "./elements.js";

export function addMarking(page) {
  function markOf(index) {
    const at = page.cell(index);
    return at ? at.block.marks[at.i] : NONE;
  }
  function applyMark(indices, mark) {
    const marks = [];
    for (const index of indices) {
      const at = page.cell(index);
      if (!at) continue;
      const { block, i } = at,
        wanted = mark instanceof Map ? mark.get(index) : mark,
        code = wanted === block.given[i] ? NONE : wanted;
      if (block.marks[i] === code) continue;
      block.marks[i] = code;
      marks.push({ row: block.rows[i], sample_id: block.ids[i], mark: code, revision: block.revisions[i] });
      page.redraw(index);
    }
    if (marks.length) page.enqueueChange({ kind: "marks", marks });
    return marks.length;
  }
  function targets() {
    return page.selected.size ? [...page.selected].sort((a, b) => a - b) : page.current >= 0 ? [page.current] : [];
  }
  /** Loads the samples of a selection that were not on the screen. */
  async function loadBlocks(list) {
    const of = page.view.view,
      missing = [
        ...new Set(
          list.filter((index) => !page.cell(index)).map((index) => Math.floor(index / page.session.block_size)),
        ),
      ];
    if (missing.length > MAX_BLOCKS - 20) {
      page.showToast(`${plural(list.length, "image")} are too many at once: select fewer.`, "bad");
      return false;
    }
    try {
      for (const number of missing)
        if (!page.blocks.has(number))
          page.storeBlock(number, await page.request("block", { view: of, number, brighten: page.settings.brighten }));
    } catch (error) {
      page.showToast(error.message, "bad");
      return false;
    }
    return page.view.view === of;
  }
  async function markTargets(mark) {
    const list = targets();
    if (!list.length) {
      page.showToast("Point at an image first, or move to one with the arrow keys.");
      return;
    }
    if (!targetsVisible() || (list.some((index) => !page.cell(index)) && !(await loadBlocks(list)))) return;
    const all = list.every((index) => markOf(index) === mark);
    applyMark(list, all ? NONE : mark);
    if (mark >= 0 && !all) rememberLabel(mark);
    page.setCurrent(page.current);
  }
  async function acceptSuggestions() {
    const list = targets(),
      pairs = [];
    if (!targetsVisible() || (list.some((index) => !page.cell(index)) && !(await loadBlocks(list)))) return;
    for (const index of list) {
      const { block, i } = page.cell(index),
        other = [block.suggested[i], block.predicted[i]].find((code) => code >= 0 && code !== block.given[i]);
      if (other !== undefined) pairs.push([index, other]);
    }
    for (const [, code] of pairs.slice(0, 9)) rememberLabel(code);
    const done =
      pairs.length &&
      (applyMark(
        pairs.map(([index]) => index),
        new Map(pairs),
      ) ||
        1);
    if (!done)
      page.showToast(
        list.length ? "No other label is suggested here. Press L to choose any label." : "Point at an image first.",
      );
    page.setCurrent(page.current);
  }
  function rememberLabel(code) {
    const at = page.recent.indexOf(code);
    if (at >= 0) page.recent.splice(at, 1);
    page.recent.unshift(code);
    page.recent.length = Math.min(page.recent.length, 9);
  }
  async function reviewGroup(g = page.currentGroup()) {
    if (!page.layout.shown) return;
    page.enqueueChange({ kind: "review_group", view: page.view.view, group: g });
    if (g + 1 < page.layout.shown) {
      page.goToGroup(g + 1);
      page.showToast(`Reviewed: ${page.view.names[g]}. Next: ${page.view.names[g + 1]}`);
    } else page.showToast(`Reviewed: ${page.view.names[g]}. That was the last group.`);
  }
  /** A tile that is not on the screen is not changed: it is scrolled into view first. */
  function targetsVisible() {
    if (page.selected.size || page.current < 0 || page.isVisible(page.current)) return true;
    page.scrollToTile(page.current);
    page.showToast("Scrolled into view: press again.");
    return false;
  }

  Object.assign(page, {
    markOf,
    applyMark,
    targets,
    loadBlocks,
    markTargets,
    acceptSuggestions,
    rememberLabel,
    reviewGroup,
    targetsVisible,
  });
}
