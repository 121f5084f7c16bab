// Elements, numbers as text, and constants. Labels and names are only ever inserted as text, never as HTML.

export const NONE = -1; // code of no mark, or no label
export const INVALID = -2; // code of the mark "invalid"
export const UNSURE = -3; // of the answer "unsure": the label stays, and counts as not judged
export const KEEP = -4; // of the answer "keep as given": looked at, and right
export const STRIP = 512; // height of a canvas strip, CSS pixels
export const MAX_BLOCKS = 80; // blocks of samples that are kept
export const MAX_SELECTED = 15000; // images marked at once, which their blocks have room for

export const BY_LABEL = ["label", "pair", "suggested"]; // groupings by the given label, alone or with another

const FOCUSABLE = ["button", "input", "select", "dialog", "main", "summary"];

/** Shows characters that change the direction of text, which could make a name look like another one. */
export const showControls = (text) =>
  String(text).replace(
    /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (one) => `⟨U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );

export function el(name, options, ...children) {
  const [tag, ...classes] = name.split("."),
    node = document.createElement(tag);
  if (typeof options !== "object" || options instanceof Node) {
    children.unshift(options);
    options = {};
  }
  node.className = classes.join(" ");
  if (FOCUSABLE.includes(tag) || options?.tabIndex !== undefined)
    node.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's own
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "text") node.textContent = showControls(value);
    else if (key === "on") for (const [name, callback] of Object.entries(value)) node.addEventListener(name, callback);
    else if (key === "style") Object.assign(node.style, value);
    else if (key === "title" || key === "aria-label") node.setAttribute(key, showControls(value));
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  const shown = children.filter((child) => child !== null && child !== undefined && child !== false);
  node.append(...shown.map((child) => (typeof child === "string" ? showControls(child) : child)));
  return node;
}
export const formatCount = (x) => Math.round(x).toLocaleString("en");
export const formatEstimate = (x) => (x >= 10 ? formatCount(x) : x >= 0.05 ? x.toFixed(1) : "0");
export const formatRange = ([low, high]) => `${formatCount(Math.floor(low))} to ${formatCount(Math.ceil(high))}`;
export const formatShare = (x) => (x >= 9.95 ? formatCount(x) : x.toFixed(x >= 0.095 ? 1 : 2));
/** Says how far to review, by the rank to stop at. */
export const adviseStop = (rank) =>
  rank
    ? `Review down to rank ${formatCount(rank)}: below, fewer than 1 in 20 is wrong.`
    : "Nowhere in the ranking are more than 1 in 20 wrong.";

/** Text that is cut in the middle where it doesn't fit: labels of a family differ near their ends. */
export function cutMiddle(text) {
  const letters = Array.from(text),
    n = letters.length > 18 ? 9 : Math.floor(letters.length / 2);
  return n ? [el("span", letters.slice(0, -n).join("")), el("span", letters.slice(-n).join(""))] : [el("span", text)];
}
/** Replaces the children of a node; the focus stays on the control at the same place. */
export function replaceChildren(node, ...children) {
  const controls = () => [...node.querySelectorAll("button:enabled, input, select")],
    at = controls().indexOf(node.getRootNode().activeElement);
  node.replaceChildren(...children.filter(Boolean));
  if (at >= 0) controls()[Math.min(at, controls().length - 1)]?.focus({ preventScroll: true });
}
/** Asks a question in a box; `choices` are texts and what they do, the first of which Enter takes. */
export function ask(app, question, choices, ...more) {
  const dialog = el("dialog.ask", { "aria-label": question }, el("p", question), ...more);
  for (const [text, callback] of choices)
    dialog.append(el("button.plain", { text, on: { click: () => (dialog.close(), callback()) } }));
  dialog.addEventListener("keydown", (e) => e.stopPropagation());
  dialog.addEventListener("close", () => dialog.remove());
  app.append(dialog);
  dialog.showModal();
}
export const plural = (n, markText) => `${formatCount(n)} ${markText}${n === 1 ? "" : "s"}`;
export const percent = (x) => `${Math.round(100 * x)}%`;
export const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
