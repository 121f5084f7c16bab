// The map of all images: similar ones side by side, colored by suspicion or label. A lasso makes a group in the grid.

import { el, percent, plural, replaceChildren } from "./elements.js";
import { makePlane } from "./plane.js";
import { packColor, pixelColor, Points, unpack } from "./points.js";

const MAX_CORNERS = 150;
const RAMP = 32; // colors of suspicion
const UNKNOWN = 255; // suspicion where there is none

export function addMap(page) {
  const tools = el("div.tools", { role: "toolbar", "aria-label": "map" }),
    notice = el("div.notice", { hidden: true });
  let data = null, // of the samples: given label, suspicion, whether they are in the view; and the map's key
    asked = 0;
  const choice = { color: "suspicion", label: -1 };
  const accepts = (row) =>
    (!data.shown || data.shown[row] === 1) && (choice.label < 0 || data.given[row] === choice.label);
  const describe = (row) => [
    page.labelOf(data.given[row]) || "(no label)",
    data.suspicion[row] === UNKNOWN ? "" : `suspicion ${percent(data.suspicion[row] / 254)}`,
  ];
  const plane = makePlane(page, { accepts, describe, take });
  const overlay = el("div.map", { hidden: true, role: "region", "aria-label": "map of all images" }, tools, plane.node);
  plane.node.append(notice);
  page.scroller.parentNode.append(overlay);

  async function openMap() {
    if (page.settings.group_by === "random") await page.backToGroups(); // it is judged without the audit
    overlay.hidden = false;
    page.scroller.inert = true;
    page.drawBar();
    page.readColors();
    if (!page.session.audited) choice.color = "label";
    drawTools();
    plane.resize();
    plane.canvas.focus({ preventScroll: true });
    await load();
  }
  function closeMap() {
    if (overlay.hidden) return;
    overlay.hidden = true;
    page.scroller.inert = false;
    plane.point(-1);
    page.drawBar();
    page.scroller.focus({ preventScroll: true });
  }
  const toggleMap = () => (overlay.hidden ? openMap() : closeMap());

  /** Fetches the map, or has it computed and waits. */
  async function load(action) {
    if (overlay.hidden || page.closed) return;
    const number = ++asked;
    let found;
    try {
      found = await page.request("map", { action, view: page.view?.view, known: data?.key });
    } catch (error) {
      found = { state: "failed", message: error.message };
    }
    if (number !== asked) return;
    if (found.state === "absent" && !action) return load("start");
    if (found.state !== "ready") return tell(found);
    notice.hidden = true;
    const isNew = found.points !== undefined; // it is sent once
    data = {
      key: found.key,
      given: isNew ? unpack(found.given, Int32Array) : data.given,
      suspicion: unpack(found.suspicion, Uint8Array),
      shown: found.shown ? unpack(found.shown, Uint8Array) : null,
    };
    if (isNew) {
      plane.points = new Points(unpack(found.points, Uint16Array));
      plane.fit();
    }
    arrange();
  }
  /** Says why there is no map, or how far it is. */
  function tell(found) {
    notice.hidden = false;
    const share = found.total ? found.done / found.total : 0,
      bar = { role: "progressbar", "aria-label": "map", "aria-valuenow": Math.round(100 * share) },
      button = (text, action) => el("button.plain", { text, on: { click: () => load(action) } });
    if (found.state === "computing") {
      replaceChildren(
        notice,
        el("p", `The map is being made, once: ${percent(share)}. You can go on reviewing meanwhile.`),
        el("div.meter.wide", bar, el("i", { style: { width: percent(share) } })),
        button("Stop", "stop"),
      );
      page.schedule(load, 700);
    } else
      replaceChildren(
        notice,
        el("p", found.message || (found.state === "stopped" ? "The map was stopped." : "The map has not been made yet.")),
        found.state === "unavailable" ? null : button("Make the map", "start"),
      );
  }

  function drawTools() {
    const radios = (name, values, chosen, choose) =>
      el(
        "div.segments",
        { role: "radiogroup", "aria-label": name },
        ...values.map(([value, text]) =>
          el("button", {
            text,
            role: "radio",
            "aria-checked": String(value === chosen),
            on: { click: () => (choose(value), drawTools(), arrange()) },
          }),
        ),
      );
    const button = (text, title, click) => el("button.plain", { text, title, on: { click } });
    const { audited, labeled, labels } = page.session;
    const colors = [
      ["suspicion", "Suspicion"],
      ["label", "Label"],
    ];
    const dragging = [
      [false, "Lasso"],
      [true, "Move"],
    ];
    replaceChildren(
      tools,
      ...[
        audited && labeled && radios("Color by", colors, choice.color, (value) => (choice.color = value)),
        choice.color === "suspicion" && legend(),
        labeled && labelSelect([[-1, "every label"], ...labels.map((name, code) => [code, name])]),
        radios("Dragging", dragging, plane.moves, (value) => (plane.moves = value)),
        button("−", "zoom out (−)", () => plane.zoom(1 / 1.5)),
        button("+", "zoom in (+)", () => plane.zoom(1.5)),
        button("Fit", "show the whole map (0)", plane.fit),
        button("These in the grid", "show the images in view as a group in the grid (Enter)", plane.takeView),
        button("Close", "back to the images (M, Esc)", closeMap),
      ].filter(Boolean),
    );
  }
  const labelSelect = (entries) =>
    el(
      "select",
      {
        "aria-label": "Label shown",
        on: {
          change: (e) => {
            choice.label = +e.target.value;
            arrange();
          },
        },
      },
      ...entries.map(([value, text]) => el("option", { value, text, selected: choice.label === value })),
    );
  function legend() {
    const stops = suspicionRamp().map((color) => `rgb(${color})`);
    return el(
      "span.legend",
      { title: "color of suspicion" },
      "0%",
      el("i", { style: { background: `linear-gradient(90deg, ${stops})` } }),
      "100%",
    );
  }
  const isDark = () => (pixelColor(plane.ctx, page.colors.ground) & 255) < 128;
  function suspicionRamp() {
    const dark = [
        [62, 84, 104],
        [196, 148, 60],
        [255, 138, 80],
      ],
      light = [
        [156, 176, 190],
        [214, 158, 46],
        [176, 42, 0],
      ],
      [low, middle, high] = isDark() ? dark : light;
    return Array.from({ length: RAMP }, (_, n) => {
      const t = (2 * n) / (RAMP - 1),
        [from, to, share] = t < 1 ? [low, middle, t] : [middle, high, t - 1];
      return from.map((value, i) => Math.round(value + (to[i] - value) * share));
    });
  }
  /** Colors the points: those that are not in the view, or of another label, are faint and below the others. */
  function arrange() {
    if (!data) return;
    const { points } = plane,
      dark = isDark(),
      faint = pixelColor(plane.ctx, page.colors.track),
      bySuspicion = suspicionRamp().map(packColor);
    const byLabel = page.session.labels.map((_, n) =>
      pixelColor(plane.ctx, `hsl(${(n * 137.508) % 360} ${dark ? 62 : 70}% ${(dark ? 60 : 38) + (n % 3) * 7}%)`),
    );
    const layerOf = (row) => (data.suspicion[row] === UNKNOWN ? 0 : (data.suspicion[row] * RAMP) >> 8),
      layers = Array.from({ length: RAMP + 1 }, () => []);
    for (let row = 0; row < points.count; row++)
      if (points.has(row)) layers[accepts(row) ? 1 + layerOf(row) : 0].push(row);
    const colorOf = (row) =>
      choice.color === "label"
        ? (byLabel[data.given[row]] ?? faint)
        : data.suspicion[row] === UNKNOWN
          ? faint
          : bySuspicion[layerOf(row)];
    const order = Uint32Array.from(layers.flat());
    points.arrange(
      order,
      order.map((row, n) => (n < layers[0].length ? faint : colorOf(row))),
    );
    plane.redraw();
  }

  /** Shows what a lasso holds as a group in the grid, within the other filters. */
  async function take(corners) {
    const every = Math.ceil(corners.length / MAX_CORNERS),
      kept = corners.filter((_, n) => n % every === 0);
    closeMap();
    page.settings.area = `${data.key.slice(0, 8)}:${kept.map(String).join(" ")}`;
    page.settings.group_by = "all";
    page.drawBar();
    await page.openView();
    const back = async () => {
      page.settings.area = "";
      page.drawBar();
      await page.openView();
      openMap();
    };
    page.showToast(`${plural(page.view.count, "image")} from the map.`, "", { text: "Back to the map", click: back });
  }
  function mapKey(e) {
    if (e.key === "Escape" || e.key.toLowerCase() === "m") closeMap();
    else if (e.key === "?") page.showHelp();
    else return;
    e.preventDefault();
    e.stopPropagation();
  }

  Object.assign(page, {
    toggleMap,
    closeMap,
    mapKey,
    updateMap: () => load(),
    recolorMap: () => (overlay.hidden ? null : (drawTools(), arrange())),
    mapIsOpen: () => !overlay.hidden,
    mapState: () => ({ key: data?.key, drawn: plane.points?.order.length ?? 0, ...plane.state() }),
  });
}
