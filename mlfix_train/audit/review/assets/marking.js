// Marking: the pointed tile, a selection, or a whole group.

import { ask, formatCount, KEEP, MAX_BLOCKS, NONE, plural, UNSURE } from "./elements.js";

const MANY_LEFT = 1; // wrong labels expected among images not seen, before a group counts as reviewed

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
      if (block.marks[i] === code || (code === KEEP && block.given[i] < 0)) continue; // no label to keep
      block.marks[i] = code;
      marks.push({ row: block.rows[i], sample_id: block.ids[i], mark: code, revision: block.revisions[i] });
      page.redraw(index);
    }
    if (marks.length) page.enqueueChange({ kind: "marks", marks });
    tellMarked(marks);
    return marks.length;
  }
  /** Says how many images were marked at once, and offers to undo that. */
  function tellMarked(marks) {
    if (marks.length < 2) return;
    const codes = new Set(marks.map((one) => one.mark)),
      [code] = codes,
      to = codes.size > 1 ? "as suggested" : code === NONE ? "as given: marks removed" : page.labelOf(code);
    page.showToast(`${plural(marks.length, "image")} set ${code === NONE || codes.size > 1 ? "" : "to "}${to}.`, "", {
      text: "Undo",
      click: () => page.enqueueChange({ kind: "undo" }),
    });
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
      page.showToast(
        `${plural(list.length, "image")} are spread too widely to be marked at once: select fewer.`,
        "bad",
      );
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
  /** Whether an answer is offered; says why not. */
  function isOffered(mark) {
    if (mark !== UNSURE || page.session.has_unsure) return true;
    page.showToast("“unsure” is a label of these data, so it is no answer here: choose the label with L.");
    return false;
  }
  async function markTargets(mark, list = targets()) {
    if (!isOffered(mark)) return;
    if (!list.length) {
      page.showToast("Point at an image first, or move to one with the arrow keys.");
      return;
    }
    if (!targetsVisible(list) || (list.some((index) => !page.cell(index)) && !(await loadBlocks(list)))) return;
    const all = list.every((index) => markOf(index) === mark);
    applyMark(list, all ? NONE : mark);
    if (mark >= 0 && !all) page.rememberLabel(mark);
    page.setCurrent(page.current);
  }
  async function acceptSuggestions() {
    const list = targets(),
      pairs = [];
    if (!targetsVisible(list) || (list.some((index) => !page.cell(index)) && !(await loadBlocks(list)))) return;
    for (const index of list) {
      const { block, i } = page.cell(index),
        other = [block.suggested[i], block.predicted[i]].find((code) => code >= 0 && code !== block.given[i]);
      if (other !== undefined) pairs.push([index, other]);
    }
    for (const [, code] of pairs.slice(0, 9)) page.rememberLabel(code);
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
  /** Counts what was on the screen of a group as reviewed; asks first where much suspicion was not. */
  function reviewGroup(g = page.currentGroup()) {
    if (!page.layout.shown) return;
    const { rows, unseen, left } = page.seenOfGroup(g),
      unit = page.calibrated() ? "wrong label" : "suspicious one";
    if (!unseen) return finishGroup(g, rows);
    const question = `${plural(unseen, "image")} of ${formatCount(page.view.sizes[g])} in this group ${unseen === 1 ? "was" : "were"} not on the screen`;
    const choices = [
      ["Show the rest", () => page.goToUnseen(g)],
      ["Count only what was on the screen", () => finishGroup(g, rows, unseen)],
      ["Count the whole group as reviewed", () => finishGroup(g)],
      ["Cancel", () => {}],
    ];
    if (page.settings.group_by === "random")
      ask(page.app, `${question}: they cannot count as judged.`, [choices[0], choices[1], choices[3]]);
    else if (left >= MANY_LEFT)
      ask(page.app, `${question}, with about ${plural(Math.round(left), unit)} among them.`, choices);
    else finishGroup(g, rows, unseen);
  }
  /** Without `rows`, the whole group counts. */
  function finishGroup(g, rows, unseen = 0) {
    page.enqueueChange({ kind: "review_group", view: page.view.view, group: g, rows });
    const done = unseen
      ? `${page.view.names[g]}: what was on the screen counts as reviewed, ${plural(unseen, "image")} do not.`
      : `Reviewed: ${page.view.names[g]}.`;
    if (g + 1 < page.layout.shown) page.goToGroup(g + 1);
    page.showToast(
      `${done} ${g + 1 < page.layout.shown ? `Next: ${page.view.names[g + 1]}` : "That was the last group."}`,
    );
  }
  /** A tile that is not on the screen is not changed: it is scrolled into view first. */
  function targetsVisible([index, ...others]) {
    if (index === undefined || others.length || page.selected.size || page.isVisible(index)) return true;
    page.scrollToTile(index);
    page.showToast("Scrolled into view: press again.");
    return false;
  }

  Object.assign(page, {
    markOf,
    applyMark,
    tellMarked,
    targets,
    loadBlocks,
    isOffered,
    markTargets,
    acceptSuggestions,
    reviewGroup,
    targetsVisible,
  });
}
