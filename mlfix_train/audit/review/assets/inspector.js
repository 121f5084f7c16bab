// The large view of a tile, with its scores and typical images.

import { el, NONE, percent, showControls } from "./elements.js";

export function addInspector(page) {
  function brightenImage(image) {
    const ctx = el("canvas", { width: 16, height: 16 }).getContext("2d");
    ctx.drawImage(image, 0, 0, 16, 16);
    const data = ctx.getImageData(0, 0, 16, 16).data;
    let light = 1;
    for (let i = 0; i < data.length; i += 4) light += (data[i] + data[i + 1] + data[i + 2]) / 768;
    image.style.filter = page.settings.brighten && light < 105 ? `brightness(${Math.min(105 / light, 4)})` : "";
  }
  let imageUrl = null;
  async function inspect() {
    const at = page.current >= 0 ? page.cell(page.current) : null;
    if (!at) {
      page.inspector.replaceChildren(el("p.quiet", "Point at an image."));
      return;
    }
    const { x } = page.rectOf(page.current); // the tile is not covered
    page.inspector.classList.toggle("left", x + page.layout.size > page.scroller.clientWidth - 370 && x > 370);
    const { block, i } = at,
      row = block.rows[i],
      given = block.given[i],
      other = block.suggested[i] >= 0 && block.suggested[i] !== given ? block.suggested[i] : block.predicted[i];
    const lines = [
      ["given", page.labelOf(given) || "(no label)"],
      ...(other >= 0 ? [["suggested", other === given ? "as given" : page.labelOf(other)]] : []),
      ...(block.suspicion[i] === null ? [] : [["suspicion", percent(block.suspicion[i])]]),
      ...(block.marks[i] === NONE ? [] : [["marked", page.labelOf(block.marks[i])]]),
    ];
    if (page.inspected !== row) {
      page.inspected = row;
      page.inspector.replaceChildren(
        el("button.close", {
          text: "×",
          "aria-label": "close",
          on: {
            click: () => {
              page.inspector.hidden = true;
            },
          },
        }),
        el("div.big"),
        el("p.id"),
        el("div.typical-rows"),
        el("dl"),
      );
      const [sample, image] = await Promise.all([
        page.request("sample", { row }).catch(() => ({ details: {} })),
        page.connection.image("images", row).catch(() => null),
      ]);
      if (page.inspected !== row || page.closed) return;
      page.inspector.sample = sample;
      if (imageUrl) URL.revokeObjectURL(imageUrl);
      imageUrl = image && URL.createObjectURL(image);
      if (imageUrl)
        page.inspector
          .querySelector(".big")
          .replaceChildren(el("img", { src: imageUrl, alt: "", on: { load: (e) => brightenImage(e.target) } }));
    }
    const d = page.inspector.sample || { details: {} };
    if (page.settings.group_by === "random") d.details = {};
    if (d.row === row && d.reviewer && block.marks[i] !== NONE)
      lines.push(
        ["by", `${d.reviewer}, ${d.time.replace("T", " ").replace("Z", " UTC")}`],
        ...(d.note ? [["note", d.note]] : []),
      );
    page.inspector.querySelector(".id").textContent = showControls(block.ids[i]);
    page.inspector
      .querySelector("dl")
      .replaceChildren(
        ...[
          ...lines,
          ...(d.row === row ? Object.entries(d.details).map(([k, v]) => [k.replaceAll("_", " "), String(v)]) : []),
        ].flatMap(([k, v]) => [el("dt", k), el("dd", v)]),
      );
    const typicalRows = [];
    for (const code of [given, other].filter((code, n, all) => code >= 0 && all.indexOf(code) === n)) {
      const canvas = el("canvas", { width: 296, height: 48 }),
        missing = new Set();
      for (let n = 0; n < 6 && (page.session.typical[code]?.[n] ?? -1) >= 0; n++)
        page.drawTypical(canvas.getContext("2d"), code, n, n * 50, 0, 48, missing);
      for (const name of missing) page.loadSheet(name);
      typicalRows.push(el("p.quiet", `typical ${page.labelOf(code)}`), canvas);
    }
    page.inspector.querySelector(".typical-rows").replaceChildren(...typicalRows);
    page.startLoading();
  }

  Object.assign(page, { inspect, brightenImage });
}
