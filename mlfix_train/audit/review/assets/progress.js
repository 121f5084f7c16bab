// The card above the groups: progress, what the judgements say about all labels, and the reviewer's name.

import { adviseStop, el, formatCount, formatEstimate, formatRange, formatShare, plural, replaceChildren } from "./elements.js";

export function addProgress(page) {
  let progressTimer = null;
  function progressSoon(ms = 400) {
    if (progressTimer) return;
    progressTimer = page.schedule(async () => {
      progressTimer = null;
      let response;
      try {
        response = await page.request("progress", { view: page.view?.view });
      } catch {
        return;
      } // the queue reports connection problems
      page.progress = response;
      if (response.calibrating) progressSoon(2000); // what the judgements say now
      if (response.group_reviewed && page.view && response.group_reviewed.length === page.view.sizes.length) {
        Object.assign(page.view, {
          group_reviewed: response.group_reviewed,
          group_marked: response.group_marked,
          group_left: response.group_left,
          expected: response.expected_in_groups,
          intervals: response.intervals,
        });
        page.drawSideRows();
        for (const node of page.sections.values()) page.updateFacts(node);
      }
      drawCard();
      page.drawJudge();
    }, ms);
  }
  function drawCard() {
    const p = page.progress;
    if (!p) return;
    const facts = [
      [formatCount(p.marked), "marked"],
      [
        p.marked_percent === null
          ? "–"
          : `${p.marked_percent < 10 ? p.marked_percent.toFixed(1) : Math.round(p.marked_percent)}%`,
        "of reviewed",
      ],
    ];
    if (p.remaining !== null) facts.push([`≈ ${formatCount(p.remaining)}`, "wrong left"]);
    const r = p.random_sample,
      e = p.estimate,
      busy = p.sprites_ready[1] && p.sprites_ready[0] < p.sprites_ready[1];
    const kept =
      (p.kept ? ` · ${formatCount(p.kept)} kept` : "") + (p.unsure ? ` · ${formatCount(p.unsure)} unsure` : "");
    const who = el("input.who", {
      value: page.settings.reviewer,
      "aria-label": "your name, as saved in the fixes",
      title: "your name, as saved in the fixes",
      maxLength: 80,
      spellcheck: false,
      on: {
        change: (e) => {
          rename(e.target);
        },
      },
    });
    const focused = document.activeElement?.className === "who";
    if (focused) return;
    replaceChildren(
      page.card,
      el("div.seen", el("b", formatCount(p.reviewed)), ` of ${formatCount(p.samples)} reviewed`),
      el("div.meter.wide", el("i", { style: { width: `${(100 * p.reviewed) / p.samples}%` } })),
      el("div.facts", ...facts.map(([number, message]) => el("div", {}, el("b", number), el("span", message)))),
      el("p", { className: p.keep_going === false ? "message stop" : "message", text: p.message }),
      el("p.pace", {
        text: `${formatCount(p.per_minute[0])} seen, ${formatEstimate(p.per_minute[1])} marked per minute${kept}${busy ? ` · images ${Math.round((100 * p.sprites_ready[0]) / p.sprites_ready[1])}% ready` : ""}`,
      }),
      el("div.count", ...countText(r, e)),
      el("button.plain", {
        text:
          page.settings.group_by === "random"
            ? "Back to the groups"
            : !r
              ? "Judge a sample"
              : r.reviewed < r.drawn
                ? "Continue the sample"
                : "Show the sample",
        on: {
          click: () => (page.settings.group_by === "random" ? page.backToGroups() : page.openJudge()),
        },
      }),
      el("label.name", el("span", "reviewer"), who),
    );
  }
  /** What the judgements say about all labels, or how to make them say it. */
  function countText(sample, estimate) {
    const left = sample ? sample.drawn - sample.reviewed : 0;
    if (!page.session.labeled) return [];
    if (!estimate) {
      return [
        el(
          "p.quiet",
          sample
            ? `Judge the sample from the top: ${sample.reviewed} of ${sample.drawn} judged.`
            : page.session.audited
              ? "How many labels are wrong? Judge 100 drawn from all ranks, and the page can tell."
              : "Judge 100 drawn at random to bound how many labels are wrong: none of 100 means up to 3.7%.",
        ),
      ];
    }
    const [low, high] = estimate.share_interval;
    return [
      el(
        "p",
        el("b", `About ${plural(estimate.wrong, "wrong label")} in all`),
        ` (${formatRange(estimate.interval)}), ${formatShare(estimate.share)}% (${formatShare(low)} to ${formatShare(high)}%)`,
      ),
      el("p.quiet", {
        title: "95% interval",
        text: `from ${formatCount(estimate.judged)} judged, ${formatCount(estimate.judged_wrong)} of them wrong${left ? `; ${formatCount(left)} of the sample left` : ""}`,
      }),
      estimate.stop_rank !== null && el("p", adviseStop(estimate.stop_rank)),
    ].filter(Boolean);
  }
  async function rename(field) {
    const before = page.settings.reviewer;
    page.settings.reviewer = field.value.trim() || page.session.own;
    try {
      await page.request("progress", {});
      page.store("reviewer", { name: page.settings.reviewer, instead: page.session.own });
    } catch (error) {
      if (error.status === 422) {
        page.showToast(error.message, "bad");
        page.settings.reviewer = before;
      }
    }
    field.value = page.settings.reviewer;
    field.blur();
    page.fetchChanges();
    progressSoon(50);
  }
  async function drawMore() {
    try {
      await page.request("draw", { count: 100 });
      await page.openView(page.currentPosition());
    } catch (error) {
      page.showProblem(error);
    }
  }

  Object.assign(page, { progressSoon, drawMore });
}
