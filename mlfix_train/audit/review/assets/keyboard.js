// Keys.

import { clamp, INVALID, KEEP, NONE, UNSURE } from "./elements.js";

export function addKeyboard(page) {
  function key(e) {
    if (!page.view || page.labelDialog.open || page.helpDialog.open) return;
    const field = e.target.matches?.("input:not([type=range]), select, textarea");
    if (e.target.type === "range" && /^(Arrow|Home|End|Page)/.test(e.key)) {
      e.stopPropagation();
      return;
    }
    if (field) {
      if (e.key === "Enter" && e.target.className === "who") e.target.blur();
      if (e.key === "Escape") {
        e.target.blur();
        page.scroller.focus();
      }
      e.stopPropagation();
      return;
    }
    if (e.target.closest?.("button") && (e.key === "Enter" || e.key === " ")) {
      e.stopPropagation();
      return;
    }
    if (page.judging) return page.judgeKey(e);
    if (page.mapIsOpen()) return page.mapKey(e);
    const letter = e.key.length === 1 ? e.key.toLowerCase() : e.key,
      command = e.ctrlKey || e.metaKey;
    let used = true;
    if (e.altKey) used = false;
    else if (command && letter === "z") page.enqueueChange({ kind: e.shiftKey ? "redo" : "undo" });
    else if (command && letter === "y") page.enqueueChange({ kind: "redo" });
    else if (command && letter === "a") {
      const g = page.currentGroup();
      if (g >= 0) {
        page.select(page.range(page.view.starts[g], page.view.starts[g + 1] - 1));
        if (page.current < 0) page.setCurrent(page.view.starts[g]);
      }
    } else if (command) used = false;
    else if (/^(Arrow|Home$|End$)/.test(e.key)) page.moveCurrent(e.key, e.shiftKey);
    else if (letter === "x" || letter === "Delete") page.markTargets(INVALID);
    else if (letter === "k") page.markTargets(KEEP);
    else if (letter === "q") page.markTargets(UNSURE);
    else if (letter === "m") page.toggleMap();
    else if (letter === "c") page.toggleFilters();
    else if (letter === "Backspace" || letter === "u") {
      const list = page.targets();
      if (page.targetsVisible(list))
        page.loadBlocks(list).then((good) => {
          if (good) page.applyMark(list, NONE);
        });
    } else if (letter === "Enter") page.acceptSuggestions();
    else if (/^[1-9]$/.test(letter)) {
      const code = page.digits[+letter - 1];
      if (code === undefined) page.showToast("No label has this digit. Press L to choose any label.");
      else page.markTargets(code);
    } else if (letter === "l") page.openLabelDialog();
    else if (letter === "z") page.enqueueChange({ kind: "undo" });
    else if (letter === "y") page.enqueueChange({ kind: "redo" });
    else if (letter === "f") page.reviewGroup();
    else if (letter === "n" || letter === "p")
      page.goToGroup(clamp(page.currentGroup() + (letter === "n" ? 1 : -1), 0, page.layout.shown - 1));
    else if (letter === " ") {
      page.showInspector();
    } else if (letter === "a") page.showSimilar();
    else if (letter === "t") page.showMatrix();
    else if (letter === "PageDown" || letter === "PageUp") page.turnPage(letter === "PageDown" ? 1 : -1);
    else if (letter === "+" || letter === "=") page.resize(page.settings.size + 12);
    else if (letter === "-") page.resize(page.settings.size - 12);
    else if (letter === "s" || letter === "/") page.toolbar.search.focus();
    else if (letter === "g") page.groupSearch.focus();
    else if (letter === "r") page.toggle("typical");
    else if (letter === "b") page.toggle("brighten");
    else if (letter === "?") page.showHelp();
    else if (letter === "Escape") {
      const isIdle = !page.selected.size && page.brush === INVALID && (page.inspector.hidden || page.isDocked());
      page.select(new Set());
      page.disarm();
      if (!page.isDocked()) page.showInspector(false);
      if (isIdle) page.goBack();
    } else used = false;
    if (used) {
      e.preventDefault();
      e.stopPropagation();
    }
  }
  page.app.addEventListener("keydown", key);
  // A notebook does things to its cells at plain keys.
  for (const kind of ["keydown", "keypress", "keyup"])
    page.app.addEventListener(kind, (e) => {
      if (page.connection.kernel && !e.ctrlKey && !e.metaKey && !e.altKey) e.stopPropagation();
    });
  page.app.addEventListener("click", (e) => {
    if (e.detail && e.target.closest("button") && !e.target.closest("dialog"))
      page.scroller.focus({ preventScroll: true });
  });
  const onDocumentKey = (e) => {
    if (document.activeElement === document.body && page.options.whole) key(e);
  };
  document.addEventListener("keydown", onDocumentKey);

  Object.assign(page, { onDocumentKey });
}
