// Leaves the groups for other images, and comes back: for the images most like one, or for a group of the matrix. What was
// on the screen is kept as it was, so that the same images are at the same place, and the same one is pointed at.

import { clamp, NONE, plural } from "./elements.js";
import { VIEW_DEFAULTS } from "./filters.js";

const MAX_STEPS = 20;

export function addSimilar(page) {
  const trail = []; // what was left, the first place first

  const viewSettings = () => Object.fromEntries(Object.keys(VIEW_DEFAULTS).map((name) => [name, page.settings[name]]));
  const isSimilar = () => page.settings.group_by.startsWith("similar:");

  /** Shows all images, grouped by something else; returns whether that worked. `goBack` returns to those on the screen. */
  async function visit(group_by) {
    const before = page.view,
      { sort_by, group_order } = page.settings,
      settings = { ...VIEW_DEFAULTS, group_by, sort_by, group_order };
    let view;
    page.app.classList.add("busy");
    try {
      view = await page.request("view", settings);
    } catch (error) {
      page.showToast(error.message, "warn");
      return false;
    } finally {
      page.app.classList.remove("busy");
    }
    if (page.closed || page.view !== before) return false;
    if (!canGoBack()) trail.length = 0;
    trail.push({
      to: group_by,
      settings: viewSettings(),
      view: before,
      position: page.currentPosition(),
      layout: page.layout,
      top: page.scroller.scrollTop,
      current: page.current,
      onScreen: new Set(page.onScreen),
    });
    if (trail.length > MAX_STEPS) trail.splice(1, 1);
    Object.assign(page.settings, settings);
    page.drawBar();
    await page.openView(null, view);
    return true;
  }
  function goBack() {
    if (!canGoBack()) return;
    const place = trail.pop();
    Object.assign(page.settings, place.settings);
    page.drawBar();
    page.openView(place.position, place.view);
    const isSame = place.layout.width === page.layout.width && place.layout.rowStep === page.layout.rowStep;
    if (isSame) page.scroller.scrollTop = place.top;
    for (const index of place.onScreen) page.onScreen.add(index);
    point(place.current);
  }
  /** Points at a tile, from which a twitch of the mouse does not take the cursor. */
  function point(index) {
    page.isHovering = false;
    page.held = {};
    page.anchor = index;
    page.setCurrent(index);
    page.refresh();
  }
  async function showSimilar(row = page.cell(page.current)?.block.rows[page.cell(page.current).i]) {
    if (page.settings.group_by === "random")
      page.showToast("Not while a sample is judged: similar images would show what the audit thinks.");
    else if (row === undefined) page.showToast("Point at an image first, or move to one with the arrow keys.");
    else if (await visit(`similar:${row}`)) {
      point(0);
      page.showToast(`The ${plural(page.view.count, "image")} most like it, by ${page.view.used}. Esc goes back.`);
    }
  }
  /** Shows groups, from the one of a given label, and of another one, on. */
  async function showGroup(group_by, given = NONE, other = NONE) {
    if (!(await visit(group_by))) return;
    const found = page.view.given.findIndex((code, g) => code === given && page.view.other[g] === other);
    page.goToGroup(clamp(found, 0, page.layout.shown - 1));
    page.scroller.focus({ preventScroll: true });
  }
  /** Returns the settings and the position to resume at: those of the groups that were left. */
  const home = () => (canGoBack() ? { settings: trail[0].settings, position: trail[0].position } : null);
  /** Not once another grouping was chosen: that is where one is now. */
  const canGoBack = () => trail.at(-1)?.to === page.settings.group_by;

  Object.assign(page, { showSimilar, showGroup, goBack, canGoBack, isSimilar, home });
}
