// The labels at the bottom: what a click sets (the brush), what the digits set, and what is suggested for a group.
// A digit sets the same label all through a review; a brush other than "invalid" is seen at the pointer and ends with
// the group that it is used in.

import { cutMiddle, el, INVALID, KEEP, NONE, replaceChildren, showControls, UNSURE } from "./elements.js";

const MAX_DIGITS = 9;
const DISARMED_MS = 500; // a click so soon after the brush ended was meant for it

export function addBrushes(page) {
  const armed = el("div.armed", { hidden: true, "aria-hidden": "true" });
  page.app.append(armed);
  let group = NONE, // that the brush is for: at the top when it was chosen, then where it was used
    used = false,
    disarmedAt = -DISARMED_MS;

  function arm(code) {
    if (page.judging) return page.answer(code);
    page.brush = code;
    group = page.currentGroup();
    used = false;
    if (code !== INVALID) page.showToast(`Clicking now sets ${page.labelOf(code)}, in one group. Esc ends it.`);
    showArmed();
    drawBrushes();
  }
  function disarm() {
    if (page.brush === INVALID) return;
    page.showToast(`Clicking no longer sets ${page.labelOf(page.brush)}.`);
    page.brush = INVALID;
    disarmedAt = performance.now();
    showArmed();
    drawBrushes();
  }
  function useBrush(index) {
    group = page.groupOf(index);
    used = true;
  }
  /** Ends the brush at a tile of another group than it was used in, and when its group has left the screen. */
  function keepBrush(index = NONE) {
    if (page.brush === INVALID || !page.layout?.shown) return;
    const top = page.scroller.scrollTop,
      isGone = group < page.groupAt(top) || group > page.groupAt(top + page.scroller.clientHeight);
    if (isGone || (used && index >= 0 && group !== page.groupOf(index))) disarm();
  }
  const wasJustDisarmed = () => performance.now() - disarmedAt < DISARMED_MS;
  /** Shows the brush at the pointer, while that is over the tiles. */
  function showArmed() {
    armed.hidden = page.brush === INVALID || !page.hover;
    if (armed.hidden) return;
    const bounds = page.app.getBoundingClientRect();
    armed.textContent = showControls(`→ ${page.labelOf(page.brush)}`);
    const x = page.hover.clientX - bounds.left + 14,
      y = page.hover.clientY - bounds.top + 18;
    armed.style.transform = `translate(${Math.min(x, bounds.width - armed.offsetWidth - 4)}px, ${y}px)`;
  }

  function suggestedLabels() {
    const found = [...(page.suggestions.get(page.currentGroup()) || [])];
    for (const code of [...page.recent, ...page.digits]) if (!found.includes(code)) found.push(code);
    return found;
  }
  /** Puts a label first among those used; it gets a digit of its own while one is free. */
  function rememberLabel(code) {
    const at = page.recent.indexOf(code);
    if (at >= 0) page.recent.splice(at, 1);
    page.recent.unshift(code);
    page.recent.length = Math.min(page.recent.length, 9);
    if (page.digits.length < MAX_DIGITS && !page.digits.includes(code)) page.digits.push(code);
  }
  function loadSuggestions(g) {
    if (g < 0 || page.suggestions.has(g)) return;
    page.suggestions.set(g, []);
    const of = page.view.view;
    page
      .request("group", { view: of, group: g })
      .then((response) => {
        if (page.view.view !== of) return;
        page.suggestions.set(g, response.suggestions);
        drawBrushes();
      })
      .catch(() => page.suggestions.delete(g));
  }
  function chip(code, key, text) {
    const on = page.brush === code;
    const meaning = {
      [INVALID]: "invalid: no label fits, or the image should not be trained on (X)",
      [KEEP]: "keep as given: looked at, and right (K)",
      [UNSURE]: "unsure: the label stays, and counts as not judged (Q)",
    }[code];
    const title = `${key ? `${key} sets ${text} for the pointed image. ` : ""}Click to set it with every click`;
    return el(
      "button",
      {
        className: `chip${on ? " on" : ""}${code === INVALID ? " out" : ""}`,
        "aria-pressed": String(on),
        title: meaning ?? title,
        on: { click: () => arm(code) },
      },
      key && el("kbd", key),
      el("span.cut", ...cutMiddle(text)),
    );
  }
  function drawBrushes() {
    if (!page.view || !page.layout) return;
    loadSuggestions(page.currentGroup());
    const other = el(
      "button.chip",
      { title: "set any other label (L)", on: { click: page.openLabelDialog } },
      el("kbd", "L"),
      "other…",
    );
    const labels = suggestedLabels();
    if (page.brush >= 0 && !labels.includes(page.brush)) labels.unshift(page.brush);
    const digitOf = (code) => (page.digits.includes(code) ? String(page.digits.indexOf(code) + 1) : "");
    const nodes = [
      chip(INVALID, "X", "invalid"),
      ...(page.session.labeled ? [chip(KEEP, "K", "as given")] : []),
      ...(page.session.has_unsure ? [chip(UNSURE, "Q", "unsure")] : []),
      other,
      ...labels.map((code) => chip(code, digitOf(code), page.labelOf(code))),
    ];
    const same = nodes.map((node) => node.className + node.textContent).join("|");
    if (same !== page.brushes.same) {
      page.brushes.same = same;
      replaceChildren(page.brushes, ...nodes);
    }
  }

  Object.assign(page, {
    arm,
    disarm,
    useBrush,
    keepBrush,
    wasJustDisarmed,
    showArmed,
    suggestedLabels,
    rememberLabel,
    drawBrushes,
  });
}
