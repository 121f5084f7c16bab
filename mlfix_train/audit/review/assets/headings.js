// Headings of groups, with typical images of their labels.

import { cutMiddle, el, formatCount, formatEstimate, formatRange, NONE, plural } from "./elements.js";

export function addHeadings(page) {
  function nameOf(g) {
    const given = page.view.given[g],
      other = page.view.other[g];
    return other >= 0 && given >= 0 && other !== given
      ? `${page.labelOf(given)} → ${shortLabel(other, given)}`
      : page.view.names[g];
  }
  /** The part of a label that differs from another one: "…30" beside "speed-limit-80". */
  function shortLabel(code, beside) {
    const name = page.labelOf(code),
      other = page.labelOf(beside);
    let n = 0;
    while (n < name.length && name[n] === other[n]) n++;
    while (n > 0 && !/[\s_./-]/.test(name[n - 1])) n--;
    return n > 3 ? `…${name.slice(n)}` : name;
  }
  function updateHeadings(top, height) {
    const shown = new Set();
    if (page.layout.shown)
      for (let g = page.groupAt(top); g < page.layout.shown && page.layout.tops[g] < top + height + 200; g++)
        shown.add(g);
    for (const [g, node] of page.sections)
      if (!shown.has(g)) {
        page.removeSection(node);
        page.sections.delete(g);
      }
    for (const g of shown)
      if (!page.sections.has(g)) {
        const node = section(g);
        page.sections.set(g, node);
        page.content.append(node);
      }
    page.keepBrush();
    const now = page.layout.shown ? page.groupAt(top + page.layout.head) : NONE;
    if (now !== page.currentSideGroup) {
      page.currentSideGroup = now;
      page.drawSideRows();
      page.scrollSideTo(now);
      if (page.current < 0) page.drawBrushes();
    }
  }
  /** Removes a heading; the focus does not fall out of the page with it. */
  function removeSection(node) {
    if (node.contains(node.getRootNode().activeElement)) page.scroller.focus({ preventScroll: true });
    node.remove();
  }
  function section(g) {
    const node = el("section", {
      style: { top: `${page.layout.tops[g]}px`, height: `${page.layout.tops[g + 1] - page.layout.tops[g]}px` },
    });
    const facts = el("small");
    const head = el(
      "header",
      { style: { height: `${page.layout.head - 8}px` } },
      el(
        "div.line",
        el("h2.cut", { title: page.view.names[g] }, ...cutMiddle(nameOf(g))),
        facts,
        page.settings.group_by === "random" &&
          el("button.plain", { text: "One at a time", on: { click: page.openJudge } }),
        page.settings.group_by === "random" &&
          el("button.plain.more", { text: "Draw 100 more", on: { click: page.drawMore } }),
        el("button.plain.reviewed", {
          text: "Mark group as reviewed",
          title: "Confirm all unmarked labels of this group and go to the next one (F)",
          on: { click: () => page.reviewGroup(g) },
        }),
      ),
    );
    node.facts = facts;
    node.g = g;
    if (page.hasTypical()) {
      node.refs = [page.view.given[g], page.view.other[g]].filter(
        (code, i, all) => code >= 0 && all.indexOf(code) === i,
      );
      node.canvas = el("canvas.refs", { "aria-hidden": "true" });
      head.append(el("div.typical", el("span", { text: node.refs.length ? "Typical" : "" }), node.canvas));
    }
    node.append(head);
    updateFacts(node);
    drawTypicalRow(node);
    return node;
  }
  /** The number of wrong labels expected in a group, or of suspicious ones where that is not known. */
  const expectedIn = (g) =>
    page.calibrated() ? `≈ ${formatEstimate(page.view.expected[g])}` : formatCount(page.view.expected[g]);
  /** What is known of a group, each as a text. */
  function factsOf(g) {
    const parts = [plural(page.view.sizes[g], "sample")];
    if (page.view.used) parts.push(`nearest first, by ${page.view.used}`);
    if (page.calibrated() && page.settings.group_by !== "random")
      parts.push(
        `${expectedIn(g)} expected wrong${page.view.intervals?.[g] ? ` (${formatRange(page.view.intervals[g])})` : ""}`,
      );
    else if (page.session.audited && page.settings.group_by !== "random" && page.view.expected[g])
      parts.push(`${expectedIn(g)} suspicious`);
    if (page.view.group_marked[g]) parts.push(`${formatCount(page.view.group_marked[g])} marked`);
    if (page.view.group_reviewed[g] >= page.view.sizes[g]) parts.push("all reviewed");
    else if (page.view.group_reviewed[g]) parts.push(`${formatCount(page.view.group_reviewed[g])} reviewed`);
    return parts;
  }
  function updateFacts(node) {
    node.facts.textContent = factsOf(node.g).join(" · ");
  }
  function drawTypicalRow(node) {
    if (!node.canvas) return;
    const [count] = page.session.typical_size,
      side = 44,
      ratio = devicePixelRatio || 1,
      gap = 4;
    const room = Math.max(
      1,
      Math.floor(
        (page.layout.width - 80 - (node.refs.length - 1) * 150) / (side + gap) / Math.max(node.refs.length, 1),
      ),
    );
    const each = Math.min(count, room),
      width = Math.max(page.layout.width - 70, 60);
    node.canvas.width = width * ratio;
    node.canvas.height = side * ratio;
    node.canvas.style.width = `${width}px`;
    node.canvas.style.height = `${side}px`;
    const ctx = node.canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.font = page.colors.font;
    node.missing = new Set();
    let x = 0;
    for (const code of node.refs) {
      if (node.refs.length > 1) {
        ctx.fillStyle = page.colors.grey;
        const text = page.fitText(ctx, page.labelOf(code), 120);
        ctx.fillText(text, x, 26);
        x += Math.ceil(ctx.measureText(text).width) + 8;
      }
      for (let i = 0; i < each && (page.session.typical[code]?.[i] ?? -1) >= 0; i++) {
        drawTypical(ctx, code, i, x, 0, side, node.missing);
        x += side + gap;
      }
      x += 14;
    }
    for (const name of node.missing) page.loadSheet(name);
  }
  function drawTypical(ctx, code, i, x, y, side, missing) {
    const perSheet = page.session.typical_size[1],
      name = page.session.typical_sheets[Math.floor(code / perSheet)],
      image = page.bitmap(name);
    if (!image) {
      missing.add(name);
      ctx.fillStyle = page.colors.mat;
      ctx.fillRect(x, y, side, side);
      return;
    }
    const s = page.session.small[0];
    ctx.drawImage(image, i * s, (code % perSheet) * s, s, s, x, y, side, side);
  }

  Object.assign(page, {
    nameOf,
    shortLabel,
    expectedIn,
    factsOf,
    updateHeadings,
    removeSection,
    updateFacts,
    drawTypicalRow,
    drawTypical,
  });
}
