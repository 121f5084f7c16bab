// The box to choose any label.

import { clamp, el } from "./elements.js";

export function addLabels(page) {
  const labelInput = el("input", {
      type: "search",
      placeholder: "Label",
      "aria-label": "label",
      on: { input: () => fillLabelDialog(0) },
    }),
    labelList = el("div.labels", { role: "listbox" });
  let labelIndex = 0,
    labelMatches = [],
    of = null;
  page.labelDialog.append(
    el("p.quiet", "Type part of a label; Enter chooses the highlighted one."),
    labelInput,
    labelList,
  );
  page.labelDialog.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "ArrowDown" || e.key === "ArrowUp") {
      e.preventDefault();
      fillLabelDialog(clamp(labelIndex + (e.key === "ArrowDown" ? 1 : -1), 0, Math.max(labelMatches.length - 1, 0)));
    }
    if (e.key === "Escape") {
      e.preventDefault();
      page.labelDialog.close();
    }
    if (e.key === "Enter") {
      e.preventDefault();
      chooseLabel(labelMatches[labelIndex]);
    }
  });
  function openLabelDialog() {
    const targets = page.targets(); // the pointer leaves them when the box opens
    of = { view: page.view.view, targets, likely: likelyLabels(targets) };
    labelInput.value = "";
    fillLabelDialog(0);
    page.labelDialog.showModal();
    labelInput.focus();
  }
  /** Returns the labels suggested for these tiles, then those for their group. */
  function likelyLabels(targets) {
    const counts = new Map();
    for (const at of targets.map((index) => page.cell(index)).filter(Boolean))
      for (const name of ["suggested", "predicted"]) {
        const code = at.block[name][at.i];
        if (code >= 0 && code !== at.block.given[at.i]) counts.set(code, (counts.get(code) || 0) + 1);
      }
    const own = [...counts].sort((a, b) => b[1] - a[1]).map(([code]) => code);
    return [...new Set([...own, ...page.suggestedLabels()])];
  }
  function fillLabelDialog(at = labelIndex) {
    labelIndex = at;
    const terms = labelInput.value.toLowerCase().split(/\s+/).filter(Boolean);
    const score = (name) => (name.toLowerCase().startsWith(terms[0] || "") ? 0 : 1);
    const likely = (code) => (of.likely.includes(code) ? of.likely.indexOf(code) : Infinity);
    labelMatches = page.session.labels
      .map((name, code) => ({ name, code }))
      .filter(({ name }) => terms.every((term) => name.toLowerCase().includes(term)))
      .sort(
        (a, b) =>
          score(a.name) - score(b.name) ||
          (likely(a.code) < likely(b.code) ? -1 : likely(a.code) > likely(b.code) ? 1 : 0) ||
          a.name.localeCompare(b.name, "en", { numeric: true }),
      )
      .slice(0, 60);
    const fresh = labelInput.value.trim();
    if (page.session.allow_new_labels && fresh && !page.session.labels.includes(fresh))
      labelMatches.push({ name: fresh, code: "new" });
    labelList.replaceChildren(
      ...labelMatches.map((one, n) => {
        const canvas = el("canvas", { width: 148, height: 36 }),
          missing = new Set();
        if (one.code !== "new")
          for (let i = 0; i < 4 && (page.session.typical[one.code]?.[i] ?? -1) >= 0; i++)
            page.drawTypical(canvas.getContext("2d"), one.code, i, i * 37, 0, 36, missing);
        for (const name of missing) page.loadSheet(name);
        return el(
          "button",
          {
            className: n === labelIndex ? "now" : "",
            role: "option",
            "aria-selected": String(n === labelIndex),
            on: { click: () => chooseLabel(one) },
          },
          el("span", { text: one.code === "new" ? `new label: ${one.name}` : one.name }),
          canvas,
        );
      }),
    );
    if (!labelMatches.length) labelList.append(el("p.quiet", "No label matches."));
    labelList.children[labelIndex]?.scrollIntoView?.({ block: "nearest" });
    page.startLoading();
  }
  async function chooseLabel(one) {
    if (!one) return;
    page.labelDialog.close();
    let code = one.code;
    if (code === "new") {
      try {
        const response = await page.request("add_label", { name: one.name, known_labels: page.session.labels.length });
        page.addLabels(response);
        code = response.code;
      } catch (error) {
        page.showToast(error.message, "bad");
        return;
      }
    }
    page.rememberLabel(code);
    if (of.view !== page.view.view) page.showToast("The images have changed: press L again.");
    else if (page.judging) page.answer(code);
    else if (of.targets.length) page.markTargets(code, of.targets);
    else page.arm(code);
    page.scroller.focus();
  }

  Object.assign(page, { openLabelDialog, fillLabelDialog });
}
