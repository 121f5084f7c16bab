// The list of groups at the side; only the rows in view exist.

import { clamp, cutMiddle, el, formatCount, formatRange, NONE } from "./elements.js";

const SIDE_ROW = 46;

export function addGroups(page) {
  let groupFilter = "",
    shownGroups = [];
  const card = el("div.card");
  const groupSearch = el("input", {
    type: "search",
    placeholder: "Find a group",
    "aria-label": "Find a group",
    on: {
      input: () => {
        groupFilter = groupSearch.value.toLowerCase();
        drawSide();
      },
      keydown: (e) => {
        if (e.key === "Enter" && shownGroups.length) {
          goToGroup(shownGroups[0]);
          page.scroller.focus();
        }
      },
    },
  });
  const id = `group-${Math.random().toString(36).slice(2, 8)}-`; // a notebook may show several lists
  const list = el("div.list", {
      role: "listbox",
      tabIndex: 0,
      "aria-label": "groups; use the arrow keys",
      "data-lm-suppress-shortcuts": "true",
      on: { scroll: () => drawSideRows(), keydown: moveInList },
    }),
    listInner = el("div");
  list.append(listInner);
  const close = el("button.close", {
    text: "×",
    "aria-label": "close the groups",
    on: { click: () => showSide(false) },
  });
  const matrix = el("button.plain", {
    text: "Matrix",
    title: "labels and confusion matrix: where suspicion is (T)",
    on: { click: () => page.showMatrix() },
  });
  page.side.append(close, card, el("div.find", groupSearch, matrix), list);
  /** Where the screen is narrow, groups and progress lie over the tiles. */
  function showSide(open = !page.app.classList.contains("side-open")) {
    page.app.classList.toggle("side-open", open);
    page.toolbar.querySelector(".menu")?.setAttribute("aria-expanded", String(open));
    if (open) drawSideRows();
  }
  function moveInList(e) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[e.key];
    if (e.key === "Enter") page.scroller.focus();
    else if (step && shownGroups.length) {
      const at = Math.max(shownGroups.indexOf(page.currentSideGroup), 0);
      goToGroup(shownGroups[clamp(at + step, 0, shownGroups.length - 1)]);
    } else return;
    e.preventDefault();
    e.stopPropagation();
  }
  function drawSide() {
    shownGroups = [];
    for (let g = 0; g < page.view.names.length; g++)
      if (!groupFilter || page.view.names[g].toLowerCase().includes(groupFilter)) shownGroups.push(g);
    groupSearch.placeholder = `Find a group (${formatCount(page.view.names.length)})`;
    listInner.style.height = `${shownGroups.length * SIDE_ROW}px`;
    drawSideRows();
  }
  function drawSideRows() {
    if (!page.view) return;
    const first = Math.max(0, Math.floor(list.scrollTop / SIDE_ROW) - 3),
      last = Math.min(shownGroups.length, first + Math.ceil(list.clientHeight / SIDE_ROW) + 8);
    const rows = [];
    for (let n = first; n < last; n++) {
      const g = shownGroups[n],
        done = page.view.group_reviewed[g] >= page.view.sizes[g];
      rows.push(
        el(
          "button",
          {
            className: `row${g === page.currentSideGroup ? " now" : ""}${done ? " done" : ""}`,
            role: "option",
            id: `${id}${g}`,
            tabIndex: -1,
            "aria-selected": String(g === page.currentSideGroup),
            style: { top: `${n * SIDE_ROW}px` },
            title: page.view.names[g],
            on: {
              click: () => {
                goToGroup(g);
                page.scroller.focus();
              },
            },
          },
          el("span.name.cut", ...cutMiddle(page.nameOf(g))),
          el("span.count", {
            text: done ? "✓" : page.view.group_marked[g] ? `${formatCount(page.view.group_marked[g])} ✕` : "",
          }),
          el(
            "span.meter",
            { title: `${formatCount(page.view.group_reviewed[g])} of ${formatCount(page.view.sizes[g])} reviewed` },
            el("i", { style: { width: `${(100 * page.view.group_reviewed[g]) / page.view.sizes[g]}%` } }),
          ),
          el("span.count", {
            text:
              page.session.audited && page.settings.group_by !== "random"
                ? page.view.expected[g] >= 0.05
                  ? page.expectedIn(g)
                  : ""
                : formatCount(page.view.sizes[g]),
            title: !page.session.audited
              ? "images"
              : page.calibrated()
                ? `wrong labels expected${page.view.intervals?.[g] ? `, 95% interval ${formatRange(page.view.intervals[g])}` : ""}`
                : "images with a suspicion of 50% or more",
          }),
        ),
      );
    }
    listInner.replaceChildren(...rows);
    list.setAttribute("aria-activedescendant", `${id}${page.currentSideGroup}`);
  }
  function scrollSideTo(g) {
    const n = shownGroups.indexOf(g);
    if (n < 0) return;
    if (n * SIDE_ROW < list.scrollTop || (n + 1) * SIDE_ROW > list.scrollTop + list.clientHeight)
      list.scrollTop = Math.max(0, n * SIDE_ROW - list.clientHeight / 3);
  }
  function goToGroup(g) {
    if (g < 0 || g >= page.layout.shown) return;
    showSide(false);
    page.scroller.scrollTop = page.layout.tops[g];
    page.current = page.anchor = NONE;
    page.disarm();
    page.setCurrent(NONE);
    page.announce(`${page.view.names[g]}: ${page.factsOf(g).join(", ")}`);
    page.refresh();
  }

  Object.assign(page, { card, groupSearch, drawSide, drawSideRows, scrollSideTo, goToGroup, showSide });
}
