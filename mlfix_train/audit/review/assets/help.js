// The list of keys.

import { el } from "./elements.js";

const KEYS = [
  ["Click, tap", "mark with the current brush, or remove the mark"],
  ["Drag", "mark several"],
  ["Shift + click", "mark from the last tile to this one"],
  ["← ↑ → ↓", "move between tiles; with Shift, select several"],
  ["Ctrl + click, Ctrl + A", "select a tile, or the whole group"],
  ["X, Delete", "mark as invalid (exclude the sample)"],
  ["Enter", "accept the suggested label"],
  ["1 … 9", "set the label with this digit, the same all through a review"],
  ["L", "set any other label"],
  ["U, Backspace", "remove the mark"],
  ["Z, Y", "undo, redo (Ctrl + Z, Ctrl + Shift + Z)"],
  ["F", "mark the group as reviewed and go to the next"],
  ["N, P", "next group, previous group"],
  ["Space", "show the full image and all scores"],
  ["Home, End", "first and last tile of the group"],
  ["Page ↑ ↓", "scroll"],
  ["+ −", "larger, smaller tiles"],
  ["S or /, G", "search samples, find a group"],
  ["R", "show or hide typical images of the label"],
  ["B", "brighten dark images, on or off"],
  ["Esc", "clear the selection, close"],
  ["?", "this list"],
];

export function addHelp(page) {
  function showHelp() {
    page.helpDialog.replaceChildren(
      el("button.close", { text: "×", "aria-label": "close", on: { click: () => page.helpDialog.close() } }),
      el("h2", "Keyboard and mouse"),
      el("dl", {}, ...KEYS.flatMap(([key, message]) => [el("dt", key), el("dd", message)])),
      el(
        "p.quiet",
        "“All changes saved” means that every mark is on disk. On a touch screen, tap to mark and hold to show the full image.",
      ),
    );
    page.helpDialog.showModal();
  }
  page.helpDialog.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "?") page.helpDialog.close();
  });
  for (const dialog of [page.labelDialog, page.helpDialog]) {
    dialog.addEventListener("click", (e) => {
      if (e.target === dialog) dialog.close();
    });
    dialog.addEventListener("close", () => page.scroller.focus());
  }

  Object.assign(page, { showHelp });
}
