// The hint of a first visit, the help, and the end of a review.

import { ask, el, formatCount, plural } from "./elements.js";

const HINT = [
  "Click what is wrong: it is marked invalid, which leaves it out of training. ",
  "Enter",
  " takes the suggested label, ",
  "F",
  " when the group is done, ",
  "?",
  " for more.",
];
const TOUCH_HINT = [
  "Tap what is wrong: it is marked invalid, which leaves it out of training; with a label chosen below, a tap sets that. Hold an image to see it large.",
];
const STEPS = [
  "Go through the groups, the most suspicious first: each holds the images that were given one label.",
  "Compare with the typical images above, and mark what is wrong. Enter takes the suggested label, a digit or L sets another one.",
  "X marks as invalid: no label fits, or the image should not be trained on. The image is then left out of training.",
  "K keeps a label as given: looked at, and right. Q where you are unsure: the label stays, and counts as not judged.",
  "F when the group is done: what was on the screen counts as reviewed, its unmarked labels as right.",
  "“Judge a sample” asks for some images, without scores, whether the label is right; it tells how many are wrong in all.",
  "“Map” puts similar images side by side: draw around some, and they are shown as a group. “Filter” narrows what is shown.",
  "“Finish” says where the fixes are, and how to train with them.",
];
const KEYS = [
  ["Click, tap", "set the current brush (invalid, unless another is chosen below), or remove the mark"],
  ["Drag", "mark several"],
  ["Shift + click", "mark from the last tile to this one"],
  ["← ↑ → ↓", "move between tiles; with Shift, select several"],
  ["Ctrl + click, Ctrl + A", "select a tile, or the whole group"],
  ["X, Delete", "mark as invalid: leave the image out of training"],
  ["Enter", "accept the suggested label"],
  ["K, Q", "keep the label as given; say that you are unsure"],
  ["1 … 9", "set the label with this digit, the same all through a review"],
  ["L", "set any other label, the likeliest first"],
  ["U, Backspace", "remove the mark"],
  ["Z, Y", "undo, redo (Ctrl + Z, Ctrl + Shift + Z)"],
  ["F", "mark the group as reviewed and go to the next"],
  ["N, P", "next group, previous group"],
  ["Space", "see an image large, with its neighbours and scores; it stays open and follows the pointer and the arrow keys"],
  ["A", "find more like it: the images most similar to the pointed one, whatever their label"],
  ["T", "see where the suspicion is: every label, and which labels are mistaken for which"],
  ["Home, End", "first and last tile of the group"],
  ["Page ↑ ↓", "scroll"],
  ["+ −", "larger, smaller tiles"],
  ["S or /, G", "search samples, find a group"],
  ["C, M", "filter by suspicion and columns; open the map of all images, and close it"],
  ["R", "show or hide typical images of the label"],
  ["B", "brighten dark images, on or off"],
  ["Tab", "go to the bar, the groups (↑ ↓ there), the tiles, the labels, undo"],
  ["Esc", "clear the selection and the brush, close; then back to where you were"],
  ["?", "this list"],
];

export function addHelp(page) {
  function showHint() {
    const touch = matchMedia("(pointer: coarse)").matches,
      texts = page.session.audited ? HINT : [HINT[0], ...HINT.slice(3)];
    page.hint.hidden = !!page.settings.hinted;
    page.hint.replaceChildren(
      el("span", ...(touch ? TOUCH_HINT : texts.map((text, n) => (n % 2 ? el("b", text) : text)))),
      el("button.plain", {
        text: "Got it",
        on: {
          click: () => {
            page.settings.hinted = true;
            page.hint.hidden = true;
            page.saveState();
          },
        },
      }),
    );
  }
  function showHelp() {
    page.helpDialog.replaceChildren(
      el("button.close", { text: "×", "aria-label": "close", on: { click: () => page.helpDialog.close() } }),
      el("h2", "How to review"),
      el("ol", {}, ...STEPS.map((text) => el("li", text))),
      el("h2", "Keyboard and mouse"),
      el("dl", {}, ...KEYS.flatMap(([key, message]) => [el("dt", key), el("dd", message)])),
      el(
        "p.quiet",
        `“All changes saved” means that every mark is on disk, in ${page.session.fixes}. On a touch screen, tap to mark and hold to show the full image.`,
      ),
    );
    page.helpDialog.showModal();
  }
  /** Says what was done, where it is and what comes next. */
  function finish() {
    const p = page.progress,
      unsaved = page.unsavedCount(),
      done = p
        ? `${formatCount(p.reviewed)} of ${plural(p.samples, "image")} reviewed, ${formatCount(p.marked)} marked.`
        : "";
    ask(
      page.app,
      unsaved ? `${plural(unsaved, "change")} not saved yet: keep this page open.` : `${done} All changes are saved.`,
      [["Back to the review", () => {}]],
      el("p", "The fixes are in ", el("code", page.session.fixes), "."),
      el("p", "To compare training before and after the fixes, with your own data:"),
      el("p", el("code", `mlfix train -m … fixes.path=${page.session.fixes} sweep=before_after`)),
      el(
        "p.quiet",
        page.connection.kernel
          ? "The cell may run again at any time: the review goes on where it was."
          : "This page may be closed. Ctrl-C ends mlfix review; the same command goes on where it was.",
      ),
    );
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

  Object.assign(page, { showHint, showHelp, finish });
}
