// Elements, numbers as text, and constants. Labels and names are only ever inserted as text, never as HTML.

export const NONE = -1; // code of no mark, or no label
export const INVALID = -2; // code of the mark "invalid"
export const STRIP = 512; // height of a canvas strip, CSS pixels
export const MAX_BLOCKS = 80; // blocks of samples that are kept

export function el(name, options, ...children) {
  const [tag, ...classes] = name.split("."),
    node = document.createElement(tag);
  if (typeof options !== "object" || options instanceof Node) {
    children.unshift(options);
    options = {};
  }
  node.className = classes.join(" ");
  for (const [key, value] of Object.entries(options || {})) {
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [name, callback] of Object.entries(value)) node.addEventListener(name, callback);
    else if (key === "style") Object.assign(node.style, value);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
export const formatCount = (x) => Math.round(x).toLocaleString("en");
export const formatEstimate = (x) => (x >= 10 ? formatCount(x) : x >= 0.05 ? x.toFixed(1) : "0");
export const formatRange = ([low, high]) => `${formatCount(Math.floor(low))} to ${formatCount(Math.ceil(high))}`;
export const formatShare = (x) => (x >= 9.95 ? formatCount(x) : x.toFixed(x >= 0.095 ? 1 : 2));

/** Text that is cut in the middle where it doesn't fit: labels of a family differ near their ends. */
export function cutMiddle(text) {
  const letters = Array.from(text),
    n = letters.length > 18 ? 9 : Math.floor(letters.length / 2);
  return n ? [el("span", letters.slice(0, -n).join("")), el("span", letters.slice(-n).join(""))] : [el("span", text)];
}
export const plural = (n, markText) => `${formatCount(n)} ${markText}${n === 1 ? "" : "s"}`;
export const percent = (x) => `${Math.round(100 * x)}%`;
export const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
