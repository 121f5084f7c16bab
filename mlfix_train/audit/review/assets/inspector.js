// The large view of the pointed image: beside the tiles where there is room, else a box over them. It shows the image, what
// the audit knows of it in words, the images most like it, and typical ones of its labels.

import { clamp, cutMiddle, el, INVALID, NONE, showControls } from "./elements.js";
import { addZoom } from "./zoom.js";

const DOCKED_WIDTH = 980; // of all between bar and foot, from which on it stands beside the tiles, CSS pixels
const REST_MS = 120; // the mouse rests on a tile before the view follows it, so that it can cross others
const STEP_MS = 30; // steps that come sooner only show the tile
const MAX_KEPT = 40; // images whose details are kept
const NEAR_SIDE = 64;

export function addInspector(page) {
  const box = page.inspector,
    preview = el("canvas"),
    image = el("img", { alt: "", hidden: true }),
    big = el(
      "div.big",
      {
        tabIndex: 0,
        role: "group",
        "aria-label": "image; + and − zoom, 0 fits",
        "data-lm-suppress-shortcuts": "true",
      },
      preview,
      image,
    ),
    name = el("span.id"),
    labels = el("p.given"),
    told = el("ul.words"),
    near = el("div.near"),
    typical = el("div.typical-rows"),
    scores = el("dl"),
    zoom = addZoom(big, () => draw());
  const similar = el("button.plain", {
    text: "More like this",
    title: "show the images most like this one (A)",
    on: { click: () => page.showSimilar(page.inspected) },
  });
  const close = el("button.close", { text: "×", "aria-label": "close", on: { click: () => showInspector(false) } });
  box.append(
    el("div.title", name, ...zoom.buttons, close),
    el("p.quiet.nothing", "Point at an image."),
    el(
      "div.about",
      big,
      el("div.line", labels, similar),
      near,
      told,
      typical,
      el("details", el("summary", "All scores"), scores),
    ),
  );
  const kept = new Map(); // row: its details, the latest last
  let shown = null, // { block, i } of the image
    waiting = null,
    step = 1;
  page.missingInView = new Set(); // sheets that it needs

  const isDocked = () => page.app.classList.toggle("docks", box.parentNode.clientWidth >= DOCKED_WIDTH);
  const watcher = new ResizeObserver(() => {
    if (page.closed) watcher.disconnect();
    else isDocked();
  });
  watcher.observe(box.parentNode);

  /** Opens or closes the view; beside the tiles that is remembered. */
  function showInspector(open = box.hidden) {
    if (open === !box.hidden) return;
    const position = page.currentPosition();
    box.hidden = !open;
    if (isDocked()) {
      page.settings.docked = open;
      page.held = {}; // the tiles move under the mouse
      page.relayout(position);
      if (page.current >= 0) page.scrollToTile(page.current);
    } else if (!open) page.scroller.focus({ preventScroll: true });
    page.drawBar();
    shown = null;
    page.inspected = NONE;
    if (open) show();
  }
  /** Follows the pointed image. */
  function inspect() {
    clearTimeout(waiting);
    if (box.hidden) return;
    const at = page.current >= 0 ? page.cell(page.current) : null;
    if (page.isHovering && at && at.block.rows[at.i] !== page.inspected) waiting = page.schedule(show, REST_MS);
    else show();
  }
  function show() {
    const at = page.current >= 0 ? page.cell(page.current) : null;
    box.classList.toggle("empty-view", !at && !shown);
    if (!at) return;
    const row = at.block.rows[at.i],
      isNew = row !== page.inspected;
    shown = at;
    page.inspected = row;
    if (isNew) {
      const { x } = page.rectOf(page.current); // a box does not cover the tile
      box.classList.toggle("left", x + page.layout.size > page.scroller.clientWidth - 370 && x > 370);
      step = page.current < (show.at ?? 0) ? -1 : 1;
      show.at = page.current;
    }
    draw();
    if (kept.get(row)?.isWhole) prefetch();
    else
      waiting = page.schedule(() => {
        load(row);
        prefetch();
      }, isNew ? STEP_MS : 0);
  }
  /** Points again at the image that is shown, after the mouse crossed others on its way here. */
  function keepInspected() {
    clearTimeout(waiting);
    const index = page.indexOfRow.get(page.inspected);
    if (index === undefined || index === page.current) return;
    page.isHovering = false;
    page.setCurrent(index);
  }
  function load(row) {
    const one = kept.get(row) ?? { url: null, isWhole: false };
    kept.delete(row); // the latest comes last
    kept.set(row, one);
    while (kept.size > MAX_KEPT) {
      const [old, gone] = kept.entries().next().value;
      kept.delete(old);
      for (const url of [gone.url, gone.sharp]) if (url) URL.revokeObjectURL(url);
    }
    if (one.isWhole) return;
    one.isWhole = true;
    const then = (key) => (value) => {
      one[key] = value;
      if (kept.get(row) !== one) value && key === "url" && URL.revokeObjectURL(value);
      else if (page.inspected === row && !page.closed) draw();
    };
    page.request("sample", { row }).then(then("sample"), () => (one.isWhole = false));
    if (page.settings.group_by !== "random")
      page
        .request("neighbours", { row, brighten: page.settings.brighten })
        .then(then("near"), (error) => {
          one.isWhole = false; // asked again at the next visit
          then("near")({ error: error.message });
        });
    if (!one.url)
      page.connection
        .image("images", row)
        .then((blob) => then("url")(URL.createObjectURL(blob)))
        .catch(() => {});
  }
  /** Loads what the next steps will show. */
  function prefetch() {
    for (const ahead of [1, 2]) {
      const at = page.cell(clamp(page.current + step * ahead, 0, page.view.count - 1));
      if (at && page.current >= 0) load(at.block.rows[at.i]);
    }
  }
  /** Marks have changed: what was said of them is asked for again. */
  function forgetDetails() {
    for (const one of kept.values()) one.isWhole = false;
    if (!box.hidden && shown) show();
  }

  function draw() {
    if (!shown || box.hidden) return;
    const { block, i } = shown,
      one = kept.get(page.inspected) || {},
      isBlind = page.settings.group_by === "random",
      given = block.given[i],
      other = block.suggested[i] >= 0 && block.suggested[i] !== given ? block.suggested[i] : block.predicted[i];
    page.missingInView.clear();
    name.replaceChildren(...cutMiddle(block.ids[i]));
    name.title = showControls(block.ids[i]);
    drawImage(block, i, one);
    const mark = block.marks[i] === NONE ? "" : `marked ${page.labelOf(block.marks[i])}`,
      isAuthor = mark && one.sample?.reviewer && one.sample.mark === block.marks[i];
    labels.replaceChildren(
      el("b", page.labelOf(given) || "(no label)"),
      ...(other >= 0 && other !== given ? [" → ", el("b", page.labelOf(other))] : []),
      ...(mark ? [" · ", el("b.mark", mark)] : []),
      ...(isAuthor ? [` by ${one.sample.reviewer}, ${one.sample.time.replace("T", " ").replace("Z", " UTC")}`] : []),
      ...(isAuthor && one.sample.note ? [`: ${one.sample.note}`] : []),
    );
    similar.hidden = isBlind;
    told.replaceChildren(...(isBlind ? [] : one.sample?.told || []).map((text) => el("li", text)));
    drawNear(isBlind ? null : one.near);
    typical.replaceChildren(...[given, other].filter((code, n, all) => code >= 0 && all.indexOf(code) === n).map(typicalRow));
    const details = Object.entries((!isBlind && one.sample?.details) || {});
    scores.parentNode.hidden = !details.length;
    scores.replaceChildren(...details.flatMap(([k, v]) => [el("dt", k.replaceAll("_", " ")), el("dd", String(v))]));
    for (const sheet of page.missingInView) page.loadSheet(sheet);
    page.startLoading();
  }
  /** Draws the tile at once, and the image over it when that is there. */
  function drawImage(block, i, one) {
    const sheet = page.sheetOf(block, i),
      tile = page.bitmap(sheet.name) || (sheet.name !== block.small && page.bitmap(block.small)),
      side = tile === page.bitmap(sheet.name) ? sheet.side : page.session.small[0],
      [n, columns] = side === sheet.side ? [sheet.i, sheet.columns] : [i, page.session.small[1]];
    preview.width = preview.height = side;
    if (tile)
      preview
        .getContext("2d")
        .drawImage(tile, (n % columns) * side, Math.floor(n / columns) * side, side, side, 0, 0, side, side);
    const url = (zoom.isZoomed() && one.sharp) || one.url;
    if (url && image.src !== url) {
      image.src = url;
      image.onload = () => brightenImage(image);
    }
    image.hidden = !url;
    zoom.apply();
    if (zoom.isZoomed() && one.url && !one.isSharp) sharpen(page.inspected, one);
  }
  /** Loads a larger image for the zoom. */
  function sharpen(row, one) {
    one.isSharp = true;
    page.connection
      .image("sharp", row)
      .then((blob) => {
        one.sharp = URL.createObjectURL(blob);
        if (page.inspected === row && !page.closed) draw();
      })
      .catch(() => {});
  }
  function brightenImage(image) {
    const ctx = el("canvas", { width: 16, height: 16 }).getContext("2d");
    ctx.drawImage(image, 0, 0, 16, 16);
    const data = ctx.getImageData(0, 0, 16, 16).data;
    let light = 1;
    for (let i = 0; i < data.length; i += 4) light += (data[i] + data[i + 1] + data[i + 2]) / 768;
    image.style.filter = page.settings.brighten && light < 105 ? `brightness(${Math.min(105 / light, 4)})` : "";
  }
  function drawNear(found) {
    if (!found) {
      near.replaceChildren();
      return;
    }
    if (found.error) {
      near.replaceChildren(el("p.quiet", found.error));
      return;
    }
    const given = shown.block.given[shown.i],
      sheet = page.bitmap(found.sheet),
      side = page.session.small[0];
    if (!sheet) page.missingInView.add(found.sheet);
    near.replaceChildren(
      el("p", found.told || "Most like it"),
      el(
        "div.nearest",
        {},
        ...found.rows.map((row, n) => {
          const canvas = el("canvas", { width: NEAR_SIDE, height: NEAR_SIDE }),
            mark = found.marks[n],
            code = mark >= 0 || mark === INVALID ? mark : found.given[n];
          if (sheet) canvas.getContext("2d").drawImage(sheet, n * side, 0, side, side, 0, 0, NEAR_SIDE, NEAR_SIDE);
          return el(
            "figure",
            { className: code === given ? "" : "differs" },
            canvas,
            el("figcaption.cut", { title: page.labelOf(code) }, ...cutMiddle(page.labelOf(code) || "(no label)")),
          );
        }),
      ),
      el("p.quiet", `${found.one_per_group ? "one per group, " : ""}compared by ${found.used}`),
    );
  }
  function typicalRow(code) {
    const canvas = el("canvas", { width: 296, height: 48 });
    for (let n = 0; n < 6 && (page.session.typical[code]?.[n] ?? -1) >= 0; n++)
      page.drawTypical(canvas.getContext("2d"), code, n, n * 50, 0, 48, page.missingInView);
    return el("div", el("p.quiet", `Typical ${page.labelOf(code)}`), canvas);
  }

  Object.assign(page, { inspect, drawInspector: draw, showInspector, keepInspected, forgetDetails, isDocked, brightenImage });
}
