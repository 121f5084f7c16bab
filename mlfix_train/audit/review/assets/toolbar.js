// The bar at the top: grouping, order, filter, search, size and theme.

import { cutMiddle, el, replaceChildren } from "./elements.js";

export function addToolbar(page) {
  const dropdown = (name, label, entries) =>
    el(
      "label.pick",
      el("span", label),
      el(
        "select",
        {
          "aria-label": label,
          disabled: name !== "group_by" && page.isSimilar(), // these are in the order of their similarity
          on: {
            change: (e) => {
              page.settings[name] = e.target.value;
              e.target.blur();
              page.openView();
            },
          },
        },
        ...entries.map(([value, text]) => el("option", { value, text, selected: page.settings[name] === value })),
      ),
    );
  function drawBar() {
    const by = [
      ["label", "label"],
      ...(page.session.audited ? [["pair", "label and prediction"]] : []),
      ...(page.session.audited ? [["suggested", "label and suggestion"]] : []),
      ["all", "no groups"],
      ...page.session.columns.map((name) => [`column:${name}`, name]),
      ["random", "sample to judge"],
      ...(page.isSimilar() ? [[page.settings.group_by, "similarity to one"]] : []),
    ];
    const within = [
      ...(page.session.audited ? [["suspicion", "suspicion"]] : []),
      ["visual", page.session.sorted ? "similarity" : "file order"],
      ...(page.session.audited && page.session.sorted ? [["both", "suspicion + similarity"]] : []),
    ];
    const search = el("input", {
      type: "search",
      placeholder: "Search",
      "aria-label": "Search ids and labels",
      value: page.settings.search,
      on: {
        keydown: (e) => {
          if (e.key === "Enter") e.target.blur();
        },
        change: (e) => {
          page.settings.search = e.target.value;
          page.openView();
        },
      },
    });
    const size = el("input", {
      type: "range",
      min: 32,
      max: 224,
      step: 4,
      value: page.settings.size,
      "aria-label": "tile size",
      title: "tile size (+ −)",
      on: { input: (e) => page.resize(+e.target.value), change: () => page.scroller.focus({ preventScroll: true }) },
    });
    page.toolbar.search = search;
    page.toolbar.size = size;
    const back = el("button.plain.back", {
      text: "← Back",
      title: "back to where you were (Esc)",
      on: { click: page.goBack },
    });
    const segments = [
      ["all", "All"],
      ["marked", "Marked"],
      ["unmarked", "Unmarked"],
      ...(page.session.audited ? [["suspicious", "Suspicious"]] : []),
      ["unreviewed", "Not reviewed"],
    ];
    const filters = page.countFilters();
    page.drawFilters();
    replaceChildren(
      page.toolbar,
      el("button.plain.menu", {
        text: "Groups",
        "aria-expanded": "false",
        title: "groups and progress",
        on: { click: () => page.showSide() },
      }),
      ...(page.canGoBack() ? [back] : []),
      el("h1.cut", { title: page.session.title }, ...cutMiddle(page.session.title)),
      dropdown("group_by", "Group by", by),
      dropdown("group_order", "Order groups", [
        ["suspicion", page.session.audited ? "suspicion" : "as in the data"],
        ["name", "name"],
      ]),
      dropdown("sort_by", "Sort by", within),
      el(
        "div.segments",
        { role: "radiogroup", "aria-label": "Show" },
        ...segments.map(([value, text]) =>
          el("button", {
            text,
            role: "radio",
            "aria-checked": String(page.settings.filter === value),
            on: {
              click: () => {
                page.settings.filter = value;
                drawBar();
                page.openView();
              },
            },
          }),
        ),
      ),
      search,
      size,
      el(
        "div.icons",
        icon(
          `Filter${filters ? ` (${filters})` : ""}`,
          "more filters: suspicion, columns (C)",
          page.toggleFilters,
          filters > 0,
        ),
        icon("Map", "map of all images (M)", page.toggleMap, page.mapIsOpen()),
        icon("◨", "large view of the pointed image (Space)", () => page.showInspector(), !page.inspector.hidden),
        icon("Brighten", "brighten dark images (B)", () => page.toggle("brighten"), page.settings.brighten),
        icon("Typical", "typical images of the label (R)", () => page.toggle("typical"), page.settings.typical),
        icon({ auto: "◑", light: "☀", dark: "☾" }[page.settings.theme], `color theme: ${page.settings.theme}`, () => {
          page.settings.theme = { auto: "dark", dark: "light", light: "auto" }[page.settings.theme];
          theme();
          drawBar();
        }),
        icon("?", "how to review, and all keys (?)", page.showHelp),
      ),
    );
  }
  const icon = (text, title, callback, on) =>
    el("button", {
      className: `icon${on ? " on" : ""}${text.length > 1 ? " text" : ""}`,
      text,
      title,
      "aria-label": title,
      ...(on === undefined ? {} : { "aria-pressed": String(!!on) }),
      on: { click: callback },
    });
  function theme() {
    page.app.dataset.theme = page.settings.theme;
    page.saveState();
    page.readColors();
    for (const strip of page.strips.values()) strip.dirty = true;
    for (const node of page.sections.values()) page.drawTypicalRow(node);
    page.refresh();
    page.recolorMap();
  }

  Object.assign(page, { drawBar, theme });
}
