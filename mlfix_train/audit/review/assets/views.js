// Which samples are shown and how: opening a view, and keeping the place when the layout changes.

import { BY_LABEL, clamp, NONE } from "./elements.js";
import { VIEW_DEFAULTS } from "./filters.js";

export function addViews(page) {
  let lastViewRequest = 0;
  /** Opens the view of the settings, or `kept`, one that was requested before. */
  async function openView(position, kept = null) {
    page.showSide(false);
    if (page.settings.group_by !== "random") page.closeJudge();
    const requestNumber = ++lastViewRequest;
    page.app.classList.add("busy");
    try {
      const wanted = Object.keys(VIEW_DEFAULTS).map((name) => [name, page.settings[name]]);
      const response = kept || (await page.request("view", Object.fromEntries(wanted)));
      if (requestNumber !== lastViewRequest) return;
      openView.reset = false;
      const same = page.view && page.view.view === response.view;
      page.view = { ...response, starts: [0] };
      for (const size of response.sizes) page.view.starts.push(page.view.starts.at(-1) + size);
      if (!same) {
        clearTiles();
        page.suggestions.clear();
        page.current = page.anchor = NONE;
        page.disarm();
        page.selected.clear();
      }
      page.computeLayout();
      page.currentSideGroup = NONE;
      page.brushes.same = "";
      if (!same) page.setCurrent(NONE);
      page.scroller.scrollTop = 0;
      if (position) restorePosition(position);
      page.drawSide();
      page.refresh();
      page.updateMap();
      page.progressSoon(50);
    } catch (error) {
      if (error.status === 422 && !openView.reset) {
        // a setting that does not apply to these samples
        openView.reset = true;
        Object.assign(page.settings, VIEW_DEFAULTS, { columns: {} });
        if (!page.session.audited) page.settings.sort_by = "visual";
        page.showToast(`${error.message} All images are shown.`, "warn");
        page.drawBar();
        page.schedule(() => openView(), 0);
        return;
      }
      page.showProblem(error);
      if (requestNumber === lastViewRequest) page.schedule(() => openView(position), 2500);
    } finally {
      if (requestNumber === lastViewRequest) {
        page.app.classList.remove("busy");
        page.writeLink();
      }
    }
  }
  function clearTiles() {
    page.leaving.clear();
    page.onScreen.clear();
    page.ticksOnScreen = new Map();
    page.blocks.clear();
    page.indexOfRow.clear();
    for (const strip of page.strips.values()) strip.node.remove();
    for (const node of page.sections.values()) page.removeSection(node);
    page.strips.clear();
    page.sections.clear();
  }
  const hasTypical = () =>
    page.settings.typical && BY_LABEL.includes(page.settings.group_by) && page.session.labeled;
  function resize(size) {
    const position = currentPosition();
    page.settings.size = clamp(size, 32, 224);
    page.toolbar.size.value = page.settings.size;
    relayout(position);
  }
  function relayout(position = currentPosition()) {
    if (!page.view) return;
    page.computeLayout();
    restorePosition(position);
    page.setCurrent(page.current);
    page.refresh();
  }
  async function toggle(name) {
    const position = currentPosition();
    page.settings[name] = !page.settings[name];
    page.drawBar();
    if (name === "brighten") {
      page.session.typical_sheets = (
        await page.request("describe", { brighten: page.settings.brighten })
      ).typical_sheets;
      page.blocks.clear();
      page.indexOfRow.clear();
    }
    relayout(position);
  }
  function currentPosition() {
    if (!page.view || !page.layout?.shown) return null;
    const top = page.scroller.scrollTop,
      g = page.groupAt(top);
    let index = page.view.starts[g];
    page.eachTile(top + page.layout.head, top + page.layout.head + page.layout.rowStep, (i) => {
      if (index === page.view.starts[g] && top > page.layout.tops[g]) index = i;
    });
    return { view: page.view.view, index, name: page.view.names[g], head: top <= page.layout.tops[g] + 1 };
  }
  function restorePosition(position) {
    if (!position || !page.layout.shown) return;
    let g = page.view.names.indexOf(position.name);
    if (position.view === page.view.view && position.index < page.view.count) {
      const at = page.rectOf(position.index);
      if (at.g < page.layout.shown) {
        page.scroller.scrollTop = position.head ? page.layout.tops[at.g] : at.y - page.layout.head;
        return;
      }
      g = at.g;
    }
    if (g >= 0 && g < page.layout.shown) page.scroller.scrollTop = page.layout.tops[g];
  }
  function saveState() {
    if (!page.session) return;
    const home = page.home(),
      state = {
        settings: { ...page.settings, ...home?.settings },
        position: home ? home.position : currentPosition(),
        digits: page.digits.map(page.labelOf),
      },
      text = JSON.stringify(state);
    if (text !== saveState.last) {
      saveState.last = text;
      page.request("save_state", { state }).catch(() => {});
    }
  }

  Object.assign(page, { openView, hasTypical, resize, relayout, toggle, currentPosition, saveState });
}
