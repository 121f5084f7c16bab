// Zoom of the large view: wheel, buttons and keys; dragging moves the image. Zoom and place stay from image to image.

import { clamp, el } from "./elements.js";

const MAX_ZOOM = 12;
const ZOOM_STEP = 1.5;
const MOVE = 40; // CSS pixels that an arrow key moves

/** Makes what is in `frame` zoom; returns its buttons, and what says whether it is enlarged. `onZoom` is told. */
export function addZoom(frame, onZoom) {
  let scale = 1,
    x = 0,
    y = 0,
    grip = null;
  function apply() {
    const room = (frame.clientWidth * (scale - 1)) / 2,
      high = (frame.clientHeight * (scale - 1)) / 2;
    x = clamp(x, -room, room);
    y = clamp(y, -high, high);
    for (const node of frame.children) node.style.transform = scale > 1 ? `translate(${x}px, ${y}px) scale(${scale})` : "";
    frame.classList.toggle("zoomed", scale > 1);
    smaller.disabled = scale <= 1;
    larger.disabled = scale >= MAX_ZOOM;
  }
  /** Zooms by a factor; what is at (`left`, `top`) from the middle of the frame stays there. */
  function zoom(factor, left = 0, top = 0) {
    const before = scale;
    scale = clamp(scale * factor, 1, MAX_ZOOM);
    x = left - ((left - x) * scale) / before;
    y = top - ((top - y) * scale) / before;
    apply();
    if (scale !== before) onZoom();
  }
  const button = (text, name, factor) =>
    el("button.icon", { text, title: name, "aria-label": name, on: { click: () => zoom(factor) } });
  const smaller = button("−", "zoom out", 1 / ZOOM_STEP),
    larger = button("+", "zoom in", ZOOM_STEP);

  frame.addEventListener(
    "wheel",
    (e) => {
      e.preventDefault();
      const bounds = frame.getBoundingClientRect();
      zoom(
        Math.exp(clamp(-e.deltaY, -200, 200) / 400),
        e.clientX - bounds.left - bounds.width / 2,
        e.clientY - bounds.top - bounds.height / 2,
      );
    },
    { passive: false },
  );
  frame.addEventListener("pointerdown", (e) => {
    if (scale <= 1) return;
    grip = { x: e.clientX - x, y: e.clientY - y };
    frame.setPointerCapture?.(e.pointerId);
  });
  frame.addEventListener("pointermove", (e) => {
    if (!grip) return;
    x = e.clientX - grip.x;
    y = e.clientY - grip.y;
    apply();
  });
  for (const kind of ["pointerup", "pointercancel"]) frame.addEventListener(kind, () => (grip = null));
  frame.addEventListener("dblclick", () => zoom(scale > 1 ? 0 : 3));
  frame.addEventListener("dragstart", (e) => e.preventDefault());
  frame.addEventListener("keydown", (e) => {
    const [dx, dy] = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key] || [0, 0];
    if (e.key === "+" || e.key === "=") zoom(ZOOM_STEP);
    else if (e.key === "-") zoom(1 / ZOOM_STEP);
    else if (e.key === "0") zoom(0);
    else if ((dx || dy) && scale > 1) {
      x += MOVE * dx;
      y += MOVE * dy;
      apply();
    } else return;
    e.preventDefault();
    e.stopPropagation();
  });
  apply();
  return { buttons: [smaller, larger], isZoomed: () => scale > 1, apply };
}
