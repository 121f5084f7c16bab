// The sample to judge, one image at a time: nothing of the audit is shown before the answer.

import {
  adviseStop,
  el,
  formatCount,
  formatRange,
  formatShare,
  INVALID,
  KEEP,
  NONE,
  percent,
  plural,
  replaceChildren,
  showControls,
  UNSURE,
} from "./elements.js";

const MORE = 100; // drawn at a time
const JUDGED = 4; // flag of a sample that was judged

export function addJudge(page) {
  const overlay = el("div.judge", { hidden: true, tabIndex: -1, role: "region", "aria-label": "judge a sample" });
  page.scroller.parentNode.append(overlay);
  let at = 0, // number in the sample
    told = "", // what the audit says of the last answer
    drawn = "",
    pictureUrl = null;

  const isJudged = (index) => page.cell(index)?.block.flags[page.cell(index).i] & JUDGED;

  async function openJudge() {
    if (page.settings.group_by !== "random") {
      page.settings.before = page.settings.group_by;
      page.settings.group_by = "random";
      page.drawBar();
      await page.openView();
    }
    page.closeMap();
    page.judging = true;
    overlay.hidden = false;
    page.scroller.inert = true;
    told = "";
    at = page.progress?.random_sample?.reviewed ?? 0;
    await showAt(at);
    overlay.focus({ preventScroll: true });
  }
  function closeJudge() {
    if (overlay.hidden) return;
    overlay.hidden = true;
    page.judging = false;
    page.scroller.inert = false;
    page.refresh();
    page.scroller.focus({ preventScroll: true });
  }
  function backToGroups() {
    closeJudge();
    page.settings.group_by = page.settings.before || "label";
    page.drawBar();
    return page.openView();
  }
  async function showAt(number) {
    at = number;
    drawn = "";
    if (at < page.view.count && (await page.loadBlocks([at]))) page.setCurrent(at);
    drawJudge();
    if (at + 1 < page.view.count && (await page.loadBlocks([at + 1]))) {
      const next = page.cell(at + 1);
      page.connection.image("images", next.block.rows[next.i]).catch(() => null); // the browser keeps it
    }
  }
  /** Records an answer and shows the next image; what the audit says is told now. */
  async function answer(mark) {
    const found = page.cell(at);
    if (!found || !page.isOffered(mark)) return;
    const { block, i } = found,
      row = block.rows[i],
      given = block.given[i];
    if (mark === KEEP && given < 0) return page.showToast("This image has no label to keep.");
    const code = mark === given ? KEEP : mark,
      change = { row, sample_id: block.ids[i], mark: code, revision: block.revisions[i] };
    block.flags[i] |= JUDGED;
    block.marks[i] = code;
    if (code >= 0) page.rememberLabel(code);
    page.enqueueChange({ kind: "marks", marks: [change], random: true });
    page.redraw(at);
    told = "";
    reveal(row, given, code);
    let next = at + 1;
    while (next < page.view.count && isJudged(next)) next++;
    await showAt(next);
  }
  /** Says what the audit thinks of an answered image. */
  async function reveal(row, given, code) {
    const sample = page.session.audited && (await page.request("sample", { row }).catch(() => null));
    if (!sample || sample.suspicion === null) return;
    const { suggested } = sample,
      more = suggested >= 0 && suggested !== given ? `suggests ${page.labelOf(suggested)}` : "label as given";
    told = `The last one, “${page.labelOf(given)}”: you said ${page.labelOf(code)}; the audit: suspicion ${percent(sample.suspicion)}, ${more}.`;
    const line = overlay.querySelector(".told");
    if (line) line.textContent = showControls(told);
  }

  function drawJudge() {
    if (overlay.hidden) return;
    const found = at < page.view.count ? page.cell(at) : null,
      key = found
        ? [at, found.block.marks[found.i], found.block.flags[found.i] & JUDGED].join()
        : `end ${JSON.stringify(page.progress?.estimate)}`;
    const facts = progressLine();
    if (key === drawn) {
      overlay.querySelector(".facts").replaceChildren(...facts);
      return;
    }
    drawn = key;
    replaceChildren(
      overlay,
      el(
        "div.head",
        el("h2", "Judge a sample"),
        el("div.facts", {}, ...facts),
        el("button.plain", {
          text: "Show as a grid",
          title: "all images of the sample at once",
          on: { click: closeJudge },
        }),
        el("button.plain", { text: "Back to the groups", title: "Esc", on: { click: backToGroups } }),
      ),
      el("div.case", {}, ...(found ? question(found) : end())),
    );
    if (!overlay.contains(overlay.getRootNode().activeElement)) overlay.focus({ preventScroll: true });
  }
  function progressLine() {
    const sample = page.progress?.random_sample,
      count = page.view.count,
      judged = Math.max(sample?.reviewed ?? 0, Math.min(at, count));
    return [
      el(
        "div.meter.wide",
        { role: "progressbar", "aria-label": "judged", "aria-valuenow": judged, "aria-valuemax": count },
        el("i", { style: { width: `${(100 * judged) / Math.max(count, 1)}%` } }),
      ),
      el(
        "p",
        `${formatCount(judged)} of ${formatCount(count)} judged${sample?.unsure ? `, ${formatCount(sample.unsure)} unsure` : ""}`,
      ),
      el("p.estimate", estimateText()),
    ];
  }
  function estimateText() {
    const e = page.progress?.estimate;
    if (!e) return "After 10 answers: how many labels are wrong in all.";
    const [low, high] = e.share_interval;
    return `About ${plural(e.wrong, "wrong label")} in all (95%: ${formatRange(e.interval)}; ${formatShare(low)} to ${formatShare(high)}%)`;
  }
  function question({ block, i }) {
    const given = block.given[i],
      mark = block.marks[i],
      isAnswered = (block.flags[i] & JUDGED) > 0;
    const picture = el("div.big", { "aria-label": "image to judge" });
    loadPicture(picture, block.rows[i]);
    const typical = el("canvas", { width: 424, height: 52, "aria-hidden": "true" }),
      missing = new Set();
    for (let n = 0; n < 8 && (page.session.typical[given]?.[n] ?? -1) >= 0; n++)
      page.drawTypical(typical.getContext("2d"), given, n, n * 53, 0, 52, missing);
    for (const name of missing) page.loadSheet(name);
    page.startLoading();
    if (missing.size) page.schedule(() => ((drawn = ""), drawJudge()), 400);
    const button = (code, keyName, text, title) =>
      el(
        "button.plain",
        {
          title,
          className: `plain${isAnswered && mark === code ? " on" : ""}`,
          "aria-pressed": String(isAnswered && mark === code),
          on: { click: () => answer(code) },
        },
        el("kbd", keyName),
        text,
      );
    return [
      picture,
      el("p.ask", "Is this “", el("b", page.labelOf(given) || "(no label)"), "”?"),
      given >= 0 && typical,
      el(
        "div.answers",
        button(KEEP, "K", "Yes, keep", "the label is right (K, Enter)"),
        button(INVALID, "X", "No: invalid", "no label fits, or the image should not be trained on (X)"),
        el(
          "button.plain",
          { title: "another label fits (L)", on: { click: page.openLabelDialog } },
          el("kbd", "L"),
          "No: other label…",
        ),
        page.session.has_unsure && button(UNSURE, "Q", "Unsure", "counts as not judged; the label stays (Q)"),
      ),
      el(
        "p.quiet",
        at > 0 &&
          el("button.plain", { text: "←", "aria-label": "the one before", on: { click: () => showAt(at - 1) } }),
        isAnswered ? ` Answered: ${mark === NONE ? "as given" : page.labelOf(mark)}. ` : " ",
        isAnswered &&
          el("button.plain", { text: "→", "aria-label": "the next one", on: { click: () => showAt(at + 1) } }),
      ),
      el("p.quiet.told", { role: "status", text: told }),
    ].filter(Boolean);
  }
  /** What the sample bought, and what more would. */
  function end() {
    const e = page.progress?.estimate,
      half = e && (e.interval[1] - e.interval[0]) / 2;
    return [
      el("h2", `All ${formatCount(page.view.count)} are judged.`),
      el("p", estimateText()),
      e && e.stop_rank !== null && el("p", adviseStop(e.stop_rank)),
      half &&
        e.judged < e.samples &&
        el(
          "p.quiet",
          `The interval is ± ${formatCount(half)}; ${MORE} more would make it about ± ${formatCount(half * Math.sqrt(e.judged / (e.judged + MORE)))}.`,
        ),
      el(
        "div.answers",
        el("button.plain", { text: "Back to the groups", on: { click: backToGroups } }),
        page.view.count < page.session.count &&
          el("button.plain", {
            text: `Draw ${MORE} more`,
            on: { click: () => page.drawMore().then(() => openJudge()) },
          }),
        el("button.plain", { text: "Go through them again", on: { click: () => showAt(0) } }),
      ),
    ].filter(Boolean);
  }
  async function loadPicture(picture, row) {
    const found = await page.connection.image("images", row).catch(() => null);
    if (!found || !picture.isConnected) return;
    if (pictureUrl) URL.revokeObjectURL(pictureUrl);
    pictureUrl = URL.createObjectURL(found);
    picture.replaceChildren(el("img", { src: pictureUrl, alt: "", on: { load: (e) => page.brightenImage(e.target) } }));
  }
  function judgeKey(e) {
    const letter = e.key.length === 1 ? e.key.toLowerCase() : e.key,
      code = page.digits[+letter - 1];
    if (e.altKey || e.ctrlKey || e.metaKey) return;
    if (letter === "Escape") backToGroups();
    else if (letter === "k" || letter === "Enter") answer(KEEP);
    else if (letter === "x" || letter === "Delete") answer(INVALID);
    else if (letter === "q") answer(UNSURE);
    else if (code !== undefined) answer(code);
    else if (letter === "l") page.openLabelDialog();
    else if (letter === "z") undo();
    else if (letter === "ArrowLeft" && at > 0) showAt(at - 1);
    else if (letter === "ArrowRight" && isJudged(at)) showAt(at + 1);
    else if (letter === "?") page.showHelp();
    else return;
    e.preventDefault();
    e.stopPropagation();
  }
  function undo() {
    page.enqueueChange({ kind: "undo" });
    if (at > 0) showAt(at - 1);
  }

  Object.assign(page, { judging: false, openJudge, closeJudge, backToGroups, drawJudge, judgeKey, answer });
}
