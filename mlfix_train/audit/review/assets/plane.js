// The plane of the map: points that the pointer and keys move and enlarge, a lasso, and the picture under the pointer.
// Many points take longer than a frame to draw. They are drawn over several, into a picture that meanwhile is shown moved
// and enlarged as it was drawn last.

import { clamp, el } from "./elements.js";
import { pixelColor } from "./points.js";

const MAX_PIXELS = 1.4e6; // of the drawing; larger screens get coarser points
const NEAR = 12; // CSS pixels from the pointer to a point
const STEP = 5; // CSS pixels between corners of a lasso
const EDGE = 14; // CSS pixels around the points at first
const PAN = 60; // CSS pixels for an arrow key
const LAST = 65535; // largest position
const FRAME_MS = 6; // for drawing points in a frame
const CHUNK = 8192; // points drawn between looks at the clock
const TIP = [164, 196]; // room for the picture under the pointer, CSS pixels

/** Returns the plane. `accepts` tells which samples can be pointed at, `describe` their texts, `take` gets a lasso. */
export function makePlane(page, { accepts, describe, take }) {
  const canvas = el("canvas", { tabIndex: 0, role: "img", "aria-label": "map of all images: arrow keys, + and −" });
  const tip = el("div.tip", { hidden: true }),
    node = el("div.plane", canvas, tip),
    ctx = canvas.getContext("2d", { alpha: false }),
    picture = document.createElement("canvas"),
    pictureCtx = picture.getContext("2d", { alpha: false });
  const plane = { node, canvas, ctx, points: null, moves: false };
  let pixels = null,
    image = null,
    ratio = 1,
    place = { scale: 1, left: 0, top: 0 }, // from positions to pixels of the canvas
    drawn = null, // the place of the picture
    job = null, // the drawing under way: its place, size of points, and the number that are drawn
    framed = false,
    pointed = -1,
    lasso = null,
    drag = null,
    pictureUrl = null;

  function resize() {
    const { clientWidth: width, clientHeight: height } = node;
    if (!width || !height) return;
    const before = { ratio, width: canvas.width, height: canvas.height };
    ratio = Math.min(devicePixelRatio || 1, Math.sqrt(MAX_PIXELS / (width * height)));
    canvas.width = picture.width = Math.round(width * ratio);
    canvas.height = picture.height = Math.round(height * ratio);
    image = ctx.createImageData(canvas.width, canvas.height);
    pixels = new Uint32Array(image.data.buffer);
    const grown = ratio / before.ratio;
    place = {
      scale: place.scale * grown,
      left: (place.left - before.width / 2) * grown + canvas.width / 2,
      top: (place.top - before.height / 2) * grown + canvas.height / 2,
    };
    redraw();
  }
  function fit() {
    const scale = Math.max(Math.min(canvas.width, canvas.height) - 2 * EDGE * ratio, 50) / LAST;
    place = { scale, left: (canvas.width - LAST * scale) / 2, top: (canvas.height - LAST * scale) / 2 };
    refresh();
  }
  /** Enlarges about a point of the canvas, its middle unless given. */
  function zoom(factor, x = canvas.width / 2, y = canvas.height / 2) {
    const least = Math.min(canvas.width, canvas.height) / LAST / 2,
      scale = clamp(place.scale * factor, least, least * 400),
      grown = scale / place.scale;
    place = { scale, left: x + (place.left - x) * grown, top: y + (place.top - y) * grown };
    refresh();
  }
  function pan(x, y) {
    place = { ...place, left: place.left + x, top: place.top + y };
    refresh();
  }
  /** Draws the points anew, which have changed. */
  function redraw() {
    drawn = job = null;
    refresh();
  }
  function refresh() {
    if (framed || page.closed) return;
    framed = true;
    requestAnimationFrame(draw);
  }
  /** Points grow as the plane is enlarged, and are larger where they are few. */
  function sizeOfPoints() {
    const spread = (place.scale * LAST) / Math.min(canvas.width, canvas.height),
      crowd = Math.sqrt((canvas.width * canvas.height) / Math.max(plane.points.count, 1));
    return Math.round(clamp((crowd / 3) * Math.sqrt(Math.max(spread, 1)), 1.6 * ratio, 9 * ratio));
  }
  /** Draws points into the picture, for a part of a frame. */
  function drawPicture() {
    const { points } = plane,
      count = points?.order.length ?? 0,
      end = performance.now() + FRAME_MS;
    if (!job) {
      job = { place, size: points ? sizeOfPoints() : 0, at: 0 };
      pixels.fill(pixelColor(ctx, page.colors.ground));
    }
    while (job.at < count && performance.now() < end) {
      const next = Math.min(job.at + CHUNK, count);
      points.draw(pixels, picture.width, picture.height, job.place, job.size, job.at, next);
      job.at = next;
    }
    if (job.at < count) return;
    pictureCtx.putImageData(image, 0, 0);
    drawn = job.place;
    job = null;
  }
  function draw() {
    framed = false;
    if (!pixels || page.closed) return;
    if (place !== drawn) drawPicture();
    if (place !== drawn) refresh();
    const size = plane.points ? sizeOfPoints() : 0,
      grown = drawn ? place.scale / drawn.scale : 1;
    ctx.fillStyle = page.colors.ground;
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.imageSmoothingEnabled = false;
    if (drawn) {
      const at = [place.left - drawn.left * grown, place.top - drawn.top * grown];
      ctx.drawImage(picture, ...at, picture.width * grown, picture.height * grown);
    }
    ctx.lineWidth = 2 * ratio;
    if (pointed >= 0) {
      ctx.strokeStyle = page.colors.ink;
      ctx.beginPath();
      ctx.arc(...toCanvas(pointed), size / 2 + 4 * ratio, 0, 7);
      ctx.stroke();
    }
    if (lasso?.length > 1) {
      ctx.strokeStyle = page.colors.blue;
      ctx.setLineDash([6 * ratio, 4 * ratio]);
      ctx.beginPath();
      for (const [x, y] of lasso) ctx.lineTo(x, y);
      ctx.closePath();
      ctx.stroke();
      ctx.setLineDash([]);
    }
  }
  const toCanvas = (row) => [
    place.scale * plane.points.positions[2 * row] + place.left,
    place.scale * plane.points.positions[2 * row + 1] + place.top,
  ];
  const toPosition = ([x, y]) => [
    clamp(Math.round((x - place.left) / place.scale), 0, LAST),
    clamp(Math.round((y - place.top) / place.scale), 0, LAST),
  ];
  function onCanvas(e) {
    const bounds = canvas.getBoundingClientRect();
    return [(e.clientX - bounds.left) * ratio, (e.clientY - bounds.top) * ratio];
  }
  /** Takes all that is in view. */
  function takeView() {
    const { width, height } = canvas;
    if (plane.points)
      take(
        [
          [0, 0],
          [width, 0],
          [width, height],
          [0, height],
        ].map(toPosition),
      );
  }

  /** Shows the picture and texts of a sample at the pointer. */
  async function point(row, e) {
    if (row >= 0) moveTip(e);
    if (row === pointed) return;
    pointed = row;
    refresh();
    tip.hidden = row < 0;
    if (row < 0) return;
    const frame = el("div.picture"),
      [label, more] = describe(row);
    tip.replaceChildren(frame, el("span", label), el("small", more));
    const found = await page.connection.image("images", row).catch(() => null);
    if (pointed !== row || !found) return;
    if (pictureUrl) URL.revokeObjectURL(pictureUrl);
    pictureUrl = URL.createObjectURL(found);
    frame.replaceChildren(el("img", { src: pictureUrl, alt: "" }));
  }
  function moveTip(e) {
    const bounds = canvas.getBoundingClientRect(),
      x = e.clientX - bounds.left,
      y = e.clientY - bounds.top;
    tip.style.left = `${x + TIP[0] > bounds.width ? Math.max(x - TIP[0], 4) : x + 16}px`;
    tip.style.top = `${clamp(y - 60, 4, Math.max(bounds.height - TIP[1], 4))}px`;
  }

  canvas.addEventListener("pointerdown", (e) => {
    if (!plane.points || e.button > 1) return;
    e.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(e.pointerId);
    point(-1);
    if (plane.moves || e.shiftKey || e.button === 1) drag = onCanvas(e);
    else lasso = [onCanvas(e)];
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!plane.points) return;
    const at = onCanvas(e);
    if (drag) {
      pan(at[0] - drag[0], at[1] - drag[1]);
      drag = at;
    } else if (lasso) {
      const [x, y] = lasso.at(-1);
      if (Math.hypot(at[0] - x, at[1] - y) > STEP * ratio) lasso.push(at);
      refresh();
    } else point(plane.points.nearest(...toPosition(at), (NEAR * ratio) / place.scale, accepts), e);
  });
  canvas.addEventListener("pointerup", () => {
    const corners = lasso;
    drag = lasso = null;
    if (corners?.length > 2) take(corners.map(toPosition));
    refresh();
  });
  canvas.addEventListener("pointercancel", () => {
    drag = lasso = null;
    refresh();
  });
  canvas.addEventListener("pointerleave", () => point(-1));
  const onWheel = (e) => {
    e.preventDefault();
    zoom(Math.exp(-clamp(e.deltaY, -300, 300) / 400), ...onCanvas(e));
    point(-1);
  };
  canvas.addEventListener("wheel", onWheel, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (step) pan(PAN * ratio * step[0], PAN * ratio * step[1]);
    else if (e.key === "+" || e.key === "=") zoom(1.5);
    else if (e.key === "-") zoom(1 / 1.5);
    else if (e.key === "0") fit();
    else if (e.key === "Enter") takeView();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  new ResizeObserver(() => resize()).observe(node);

  return Object.assign(plane, {
    resize,
    fit,
    zoom,
    redraw,
    point,
    takeView,
    state: () => ({ place, ratio, pointed, isDrawn: place === drawn }),
  });
}
