// Tiles on strips of canvas, which the browser scrolls; scripts only draw what comes into view.

import { clamp, el, INVALID, KEEP, NONE, percent, showControls, STRIP, UNSURE } from "./elements.js";

export function addTiles(page) {
  function readColors() {
    const style = getComputedStyle(page.app),
      value = (name) => style.getPropertyValue(name).trim();
    page.colors = Object.fromEntries(
      ["ink", "grey", "mat", "ground", "blue", "red", "track", "card", "green"].map((name) => [
        name,
        value(`--${name}`),
      ]),
    );
    page.colors.family = style.fontFamily;
    page.colors.font = `11px ${style.fontFamily}`;
    page.colors.bold = `600 11px ${style.fontFamily}`;
  }
  function fitText(ctx, name, width) {
    const text = showControls(name);
    const key = `${width}|${ctx.font}|${text}`;
    let found = page.fittedTexts.get(key);
    if (found === undefined) {
      found = text;
      const rest = text.replace(/^…/, ""),
        fits = (part) => ctx.measureText(part).width <= width,
        cut = (n) =>
          n < 2 ? `${rest.slice(0, n)}…` : `${rest.slice(0, Math.ceil(n / 2))}…${rest.slice(-Math.floor(n / 2))}`;
      if (!fits(text)) {
        let low = 0,
          high = rest.length - 1; // keep the beginning and the end, where names differ
        while (low < high) {
          const mid = (low + high + 1) >> 1;
          if (fits(cut(mid))) low = mid;
          else high = mid - 1;
        }
        found = fits(rest) ? rest : low > 0 ? cut(low) : "";
      }
      if (page.fittedTexts.size > 8000) page.fittedTexts.clear();
      page.fittedTexts.set(key, found);
    }
    return found;
  }
  const colorOfMark = (mark) => page.colors[{ [INVALID]: "red", [UNSURE]: "grey", [KEEP]: "green" }[mark] ?? "blue"];
  function drawTile(ctx, index, x, y, missing) {
    const size = page.layout.size,
      at = page.cell(index);
    if (!at) {
      const number = Math.floor(index / page.session.block_size);
      missing.add(number);
      ctx.fillStyle = page.colors.mat;
      ctx.fillRect(x, y, size, size);
      return;
    }
    const { block, i } = at,
      sheet = page.sheetOf(block, i),
      image = page.bitmap(sheet.name);
    const mark = block.marks[i],
      flags = block.flags[i];
    if (image)
      ctx.drawImage(
        image,
        (sheet.i % sheet.columns) * sheet.side,
        Math.floor(sheet.i / sheet.columns) * sheet.side,
        sheet.side,
        sheet.side,
        x,
        y,
        size,
        size,
      );
    else {
      missing.add(sheet.name);
      const small = page.large() && page.bitmap(block.small);
      if (small)
        ctx.drawImage(
          small,
          (i % page.session.small[1]) * page.session.small[0],
          Math.floor(i / page.session.small[1]) * page.session.small[0],
          page.session.small[0],
          page.session.small[0],
          x,
          y,
          size,
          size,
        );
      else {
        ctx.fillStyle = page.colors.mat;
        ctx.fillRect(x, y, size, size);
      }
    }
    const suspicion = block.suspicion[i];
    if (suspicion !== null) {
      ctx.fillStyle = page.colors.track;
      ctx.fillRect(x, y + size + 1, size, 3);
      ctx.fillStyle = page.colors.red;
      ctx.fillRect(x, y + size + 1, size * suspicion, 3);
    }
    if (page.selected.has(index)) {
      ctx.strokeStyle = page.colors.blue;
      ctx.lineWidth = 2;
      ctx.setLineDash([4, 3]);
      ctx.strokeRect(x - 2, y - 2, size + 4, size + 4);
      ctx.setLineDash([]);
    }
    if (mark !== NONE) {
      const color = colorOfMark(mark),
        edge = clamp(size / 28, 2, 4),
        badge = clamp(size / 3.4, 13, 26);
      if (mark === INVALID) {
        ctx.fillStyle = page.colors.ground;
        ctx.globalAlpha = 0.5;
        ctx.fillRect(x, y, size, size);
        ctx.globalAlpha = 1;
      }
      ctx.strokeStyle = color;
      ctx.lineWidth = edge;
      ctx.strokeRect(x + edge / 2, y + edge / 2, size - edge, size - edge);
      ctx.fillStyle = color;
      ctx.fillRect(x + size - badge, y, badge, badge);
      ctx.strokeStyle = page.colors.card;
      ctx.lineWidth = Math.max(1.6, badge / 9);
      ctx.beginPath();
      const a = x + size - badge * 0.7,
        b = x + size - badge * 0.3,
        c = y + badge * 0.3,
        d = y + badge * 0.7;
      if (mark === INVALID) {
        ctx.moveTo(a, c);
        ctx.lineTo(b, d);
        ctx.moveTo(b, c);
        ctx.lineTo(a, d);
      } else if (mark === UNSURE) {
        ctx.font = `700 ${Math.round(badge * 0.75)}px ${page.colors.family}`;
        ctx.fillStyle = page.colors.card;
        ctx.textAlign = "center";
        ctx.fillText("?", x + size - badge / 2, y + badge * 0.77);
        ctx.textAlign = "left";
      } else if (mark === KEEP) {
        ctx.moveTo(a, y + badge * 0.52);
        ctx.lineTo(x + size - badge * 0.55, d);
        ctx.lineTo(b, c);
      } else {
        const m = y + badge / 2;
        ctx.moveTo(a, m);
        ctx.lineTo(b, m);
        ctx.moveTo(b - badge * 0.17, m - badge * 0.17);
        ctx.lineTo(b, m);
        ctx.lineTo(b - badge * 0.17, m + badge * 0.17);
      }
      ctx.stroke();
    } else if (flags & 2) {
      const r = clamp(size / 9, 5, 8),
        cx = x + size - r - 3,
        cy = y + size - r - 3;
      ctx.fillStyle = page.colors.green;
      ctx.beginPath();
      ctx.arc(cx, cy, r, 0, 7);
      ctx.fill();
      ctx.strokeStyle = page.colors.card;
      ctx.lineWidth = 1.6;
      ctx.beginPath();
      ctx.moveTo(cx - r * 0.45, cy);
      ctx.lineTo(cx - r * 0.1, cy + r * 0.4);
      ctx.lineTo(cx + r * 0.5, cy - r * 0.4);
      ctx.stroke();
    }
    if (page.layout.lines) caption(ctx, block, i, x, y + size + 15, mark);
  }
  function caption(ctx, block, i, x, y, mark) {
    const width = page.layout.size,
      suspicion = block.suspicion[i],
      score = suspicion === null ? "" : percent(suspicion);
    ctx.font = page.colors.font;
    if (page.layout.lines === 2) {
      ctx.fillStyle = page.colors.ink;
      ctx.fillText(fitText(ctx, page.labelOf(block.given[i]) || "(no label)", width), x, y);
      y += 14;
    }
    const room = width - [0, 27, 27, 27, 35][score.length];
    const other =
      block.predicted[i] >= 0 && block.predicted[i] !== block.given[i]
        ? page.shortLabel(block.predicted[i], block.given[i])
        : "";
    if (mark !== NONE) {
      ctx.font = page.colors.bold;
      ctx.fillStyle = colorOfMark(mark);
      const text = mark === KEEP ? "kept" : mark < 0 ? page.labelOf(mark) : page.shortLabel(mark, block.given[i]);
      ctx.fillText(fitText(ctx, text, room), x, y);
      ctx.font = page.colors.font;
    } else if (other) {
      ctx.fillStyle = page.colors.grey;
      ctx.fillText(`→ ${fitText(ctx, other, room - 13)}`, x, y);
    }
    if (score) {
      ctx.fillStyle = page.colors.grey;
      ctx.textAlign = "right";
      ctx.fillText(score, x + width, y);
      ctx.textAlign = "left";
    }
  }
  function drawStrip(k, strip) {
    const ratio = devicePixelRatio || 1,
      width = Math.round((page.layout.width + 20) * ratio),
      height = Math.round(STRIP * ratio);
    if (strip.node.width !== width || strip.node.height !== height) {
      strip.node.width = width;
      strip.node.height = height;
    }
    const ctx = strip.ctx,
      top = k * STRIP;
    strip.missing.clear();
    strip.dirty = false;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, page.layout.width + 20, STRIP);
    ctx.imageSmoothingQuality = "medium";
    page.eachTile(top - page.layout.rowStep, top + STRIP, (index, x, y) =>
      drawTile(ctx, index, x, y - top, strip.missing),
    );
  }
  function redraw(index) {
    const { x, y, g } = page.rectOf(index);
    if (g >= page.layout.shown) return;
    for (let k = Math.floor((y - 4) / STRIP); k <= Math.floor((y + page.layout.rowStep) / STRIP); k++) {
      const strip = page.strips.get(k);
      if (!strip || strip.dirty) continue;
      const ctx = strip.ctx;
      ctx.clearRect(x - 3, y - 3 - k * STRIP, page.layout.size + 6, page.layout.rowStep - page.layout.gap + 3);
      drawTile(ctx, index, x, y - k * STRIP, strip.missing);
    }
  }
  let framed = false,
    lastTop = 0;
  function refresh() {
    if (!framed && !page.closed) {
      framed = true;
      requestAnimationFrame(frame);
    }
  }
  function frame() {
    framed = false;
    if (!page.view || page.closed) return;
    const top = page.scroller.scrollTop,
      height = page.scroller.clientHeight,
      began = performance.now(),
      down = top >= lastTop;
    lastTop = top;
    if (!height) return;
    const first = Math.floor(top / STRIP),
      last = Math.floor((top + height) / STRIP);
    const ahead = down ? [last + 1, first - 1] : [first - 1, last + 1];
    const kept = new Set();
    for (let k = first; k <= last; k++) kept.add(k);
    for (const k of ahead) if (k >= 0 && k * STRIP < page.layout.height) kept.add(k);
    for (const [k, strip] of page.strips)
      if (!kept.has(k) && (strip.dirty || strip.missing.size || Math.abs(k - first) > 4 + last - first)) {
        strip.node.remove();
        page.strips.delete(k);
      }
    page.loadQueue = [];
    let more = false,
      number = 0;
    for (const k of kept) {
      let strip = page.strips.get(k);
      if (!strip) {
        const node = el("canvas.strip", {
          style: { top: `${k * STRIP}px`, width: `${page.layout.width + 20}px`, height: `${STRIP}px` },
        });
        strip = { node, ctx: node.getContext("2d"), missing: new Set(), dirty: true };
        page.strips.set(k, strip);
        page.content.append(node);
      }
      if (strip.dirty) {
        if (number && performance.now() - began > 7) {
          more = true;
          continue;
        }
        drawStrip(k, strip);
        number++;
      }
      for (const key of strip.missing)
        if (typeof key === "number") page.loadBlock(key);
        else page.loadSheet(key);
    }
    const next = down ? last + 2 : first - 2;
    page.eachTile(next * STRIP, next * STRIP + 1, (index) =>
      page.loadBlock(Math.floor(index / page.session.block_size)),
    );
    page.updateHeadings(top, height);
    for (const name of page.missingInView) page.loadSheet(name);
    page.startLoading();
    if (more) refresh();
    if (page.loadQueue.length) page.startLoading();
  }

  Object.assign(page, { readColors, fitText, redraw, refresh });
}
