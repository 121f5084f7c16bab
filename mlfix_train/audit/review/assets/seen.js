// Which samples were on the screen. One counts as seen once it was there for two seconds and scrolled out of it, for until
// then it may still be marked. In the sample to judge it takes longer, the more images are on the screen, and only
// scrolling down counts, so that the judged part has no gaps.

import { NONE, plural } from "./elements.js";

const TICK_MS = 400;
const SEEN_MS = 2000;
const MAX_ROWS = 20000; // in one request
const JUDGE_MS = 100; // for each image on the screen of the sample to judge

export function addSeen(page) {
  const seenRows = [],
    seenRandomRows = [];
  let warned = 0;
  const isRandom = () => page.settings.group_by === "random";
  const isReviewed = (block, i) => !isRandom() && (block.flags[i] & 3 || block.marks[i] !== NONE);

  /** Returns the tiles on the screen whose images are drawn. */
  function tilesOnScreen() {
    const found = [],
      top = page.scroller.scrollTop,
      bottom = top + page.scroller.clientHeight - page.layout.size * 0.6;
    page.eachTile(top + page.layout.head - page.layout.rowStep / 2, bottom, (index) => {
      const at = page.cell(index);
      if (at && page.bitmaps.has(page.sheetOf(at.block, at.i).name)) found.push(index);
    });
    return found;
  }
  function tick() {
    if (!page.view || document.hidden || page.closed || !page.layout.shown || page.scroller.inert) {
      page.ticksOnScreen = new Map();
      return;
    }
    const top = page.scroller.scrollTop + page.layout.head,
      now = new Map(),
      random = isRandom(),
      shown = tilesOnScreen(),
      needed = Math.max(SEEN_MS, random ? JUDGE_MS * shown.length : 0) / TICK_MS;
    for (const index of shown) {
      const { block, i } = page.cell(index),
        ticks = (page.ticksOnScreen.get(index) || 0) + 1;
      now.set(index, ticks);
      if (ticks > 1) page.onScreen.add(index);
      if (ticks >= needed && (random || !(block.flags[i] & 1))) page.leaving.set(index, block.rows[i]);
    }
    for (const [index, row] of page.leaving) {
      if (now.has(index) || (random && page.rectOf(index).y + page.layout.size > top)) continue;
      page.leaving.delete(index);
      const at = page.cell(index);
      if (at && !random) at.block.flags[at.i] |= 1;
      (random ? seenRandomRows : seenRows).push(row);
    }
    if (random) warnOfHaste(now, needed);
    page.ticksOnScreen = now;
  }
  function warnOfHaste(now, needed) {
    const judged = page.progress?.random_sample?.reviewed ?? 0,
      hasty = [...page.ticksOnScreen].filter(
        ([index, ticks]) => ticks < needed && index >= judged && !now.has(index) && index < Math.min(...now.keys()),
      );
    if (!hasty.length || performance.now() - warned < 6000) return;
    warned = performance.now();
    page.showToast(
      `Scrolled past ${plural(hasty.length, "image")} too quickly to count as judged: scroll back up.`,
      "warn",
    );
  }
  /** Returns what was on the screen of a group: rows now, the number that never was, and the suspicion left in these. */
  function seenOfGroup(g) {
    for (const index of tilesOnScreen()) page.onScreen.add(index);
    const rows = [],
      [start, end] = [page.view.starts[g], page.view.starts[g + 1]],
      judged = page.progress?.random_sample?.reviewed ?? 0;
    let left = page.view.group_left?.[g] ?? 0,
      before = isRandom() ? 0 : page.view.group_reviewed[g], // in blocks that are not loaded any more
      count = 0;
    for (let index = start; index < end; index++) {
      const at = page.cell(index),
        isNew = page.onScreen.has(index),
        wasSeen = at && (isRandom() ? index < judged : isReviewed(at.block, at.i));
      if (wasSeen || isNew) count++;
      if (wasSeen) before--;
      if (!at || !isNew) continue;
      rows.push(at.block.rows[at.i]);
      const suspicion = at.block.suspicion[at.i] ?? 0;
      if (!wasSeen) left -= page.calibrated() ? suspicion : suspicion >= 0.5;
    }
    return { rows: rows.slice(-MAX_ROWS), unseen: Math.max(end - start - count - Math.max(before, 0), 0), left };
  }
  /** Scrolls to the first tile of a group that was not on the screen. */
  function goToUnseen(g) {
    const isNew = (index) => {
      const at = page.cell(index);
      return !page.onScreen.has(index) && !(at && isReviewed(at.block, at.i));
    };
    let index = page.view.starts[g];
    while (index < page.view.starts[g + 1] - 1 && !isNew(index)) index++;
    page.scroller.scrollTop = page.rectOf(index).y - page.layout.head - 4;
    page.refresh();
  }
  async function sendSeen() {
    for (const [list, random] of [
      [seenRows, false],
      [seenRandomRows, true],
    ]) {
      const rows = list.splice(0, 10000);
      if (rows.length)
        try {
          await page.request("seen", { rows, random });
          page.progressSoon();
        } catch {
          list.push(...rows);
        }
    }
  }

  Object.assign(page, { tick, sendSeen, seenOfGroup, goToUnseen });
}
