// Which samples were on the screen.

const SEEN_TICKS = 5; // ticks of 400 ms on the screen after which a sample counts as seen

export function addSeen(page) {
  const seenRows = [],
    seenRandomRows = [];
  // A sample counts as seen once it was on the screen and scrolled out of it, for until then it may still be marked. In the
  // sample to judge only scrolling down counts, so that the judged part has no gaps.
  function tick() {
    if (!page.view || document.hidden || page.closed || !page.layout.shown) {
      page.ticksOnScreen = new Map();
      return;
    }
    const top = page.scroller.scrollTop,
      now = new Map(),
      random = page.settings.group_by === "random";
    page.eachTile(
      top + page.layout.head - page.layout.rowStep / 2,
      top + page.scroller.clientHeight - page.layout.size * 0.6,
      (index) => {
        const at = page.cell(index);
        if (!at || !page.bitmaps.has(page.sheetOf(at.block, at.i).name)) return;
        const ticks = (page.ticksOnScreen.get(index) || 0) + 1;
        now.set(index, ticks);
        if (ticks >= SEEN_TICKS && (random || !(at.block.flags[at.i] & 1)))
          page.leaving.set(index, at.block.rows[at.i]);
      },
    );
    for (const [index, row] of page.leaving) {
      if (now.has(index) || (random && page.rectOf(index).y + page.layout.size > top + page.layout.head)) continue;
      page.leaving.delete(index);
      const at = page.cell(index);
      if (at && !random) at.block.flags[at.i] |= 1;
      (random ? seenRandomRows : seenRows).push(row);
    }
    page.ticksOnScreen = now;
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

  Object.assign(page, { tick, sendSeen });
}
