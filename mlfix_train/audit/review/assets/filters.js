// Which samples are shown beside the toolbar's own settings: the least suspicion, filters on columns, a part of the map.

import { el, percent, replaceChildren } from "./elements.js";

/** What makes a view, and what it is at first. */
export const VIEW_DEFAULTS = {
  group_by: "label",
  sort_by: "suspicion",
  group_order: "suspicion",
  filter: "all",
  search: "",
  min_suspicion: 0,
  columns: {},
  area: "",
};
const SLIDE_MS = 250;

export function addFilters(page) {
  const bar = el("div.filters", { hidden: true, role: "group", "aria-label": "filters" });
  let isOpen = null, // not before it is known whether there are filters
    opened = "", // column whose values are being chosen
    sliding = 0;
  page.toolbar.after(bar);

  const describe = (name) => page.session.filters.find((one) => one.name === name) || { name };
  const countFilters = () => {
    const { min_suspicion, columns, area } = page.settings;
    return Object.keys(columns).length + (min_suspicion > 0) + (area !== "");
  };
  function toggleFilters() {
    isOpen = !isOpen;
    page.drawBar();
    if (!bar.hidden) bar.querySelector("input, select, button")?.focus();
    else page.scroller.focus({ preventScroll: true });
  }
  function clearFilters() {
    const { group_by, sort_by, group_order } = page.settings;
    Object.assign(page.settings, VIEW_DEFAULTS, { columns: {}, group_by, sort_by, group_order });
    opened = "";
    page.drawBar();
    page.openView();
  }
  function apply() {
    page.drawBar();
    page.openView();
  }
  function setColumn(name, filter) {
    const { [name]: _, ...others } = page.settings.columns;
    page.settings.columns = filter ? { ...others, [name]: filter } : others;
    apply();
  }

  function drawFilters() {
    if (!page.session) return;
    const names = Object.keys(page.settings.columns);
    isOpen ??= countFilters() > 0; // a link or a reload brought some
    bar.hidden = !isOpen || page.settings.group_by === "random"; // the sample to judge is whole
    if (bar.hidden) return;
    const shown = opened && !names.includes(opened) ? [...names, opened] : names;
    const rest = page.session.filters.filter((one) => !shown.includes(one.name));
    replaceChildren(
      bar,
      page.session.audited && slider(),
      ...shown.map(column),
      page.settings.area &&
        chip("part of the map", "Show images from anywhere on the map", () => {
          page.settings.area = "";
          apply();
        }),
      el(
        "select",
        {
          "aria-label": "Add a filter",
          on: {
            change: (e) => {
              opened = e.target.value;
              drawFilters();
              bar.querySelector(".column:last-of-type :is(input, button)")?.focus();
            },
          },
        },
        el("option", { value: "", text: "Add a filter…" }),
        ...rest.map(({ name }) => el("option", { value: name, text: name.replaceAll("_", " ") })),
      ),
      countFilters() > 0 && el("button.plain", { text: "Clear filters", on: { click: clearFilters } }),
      page.options.whole &&
        el("button.plain", {
          text: "Copy link",
          title: "a link that opens this view, for those who have opened the review's own link before",
          on: { click: page.copyLink },
        }),
    );
  }
  function slider() {
    const value = el("output", percent(page.settings.min_suspicion));
    return el(
      "label.column",
      el("span", "Suspicion at least"),
      el("input", {
        type: "range",
        min: 0,
        max: 100,
        value: 100 * page.settings.min_suspicion,
        "aria-label": "least suspicion shown, percent",
        on: {
          input: (e) => {
            page.settings.min_suspicion = +e.target.value / 100;
            value.textContent = percent(page.settings.min_suspicion);
            const number = ++sliding;
            page.schedule(() => number === sliding && page.openView(), SLIDE_MS);
          },
          change: () => page.drawBar(),
        },
      }),
      value,
    );
  }
  const chip = (text, title, remove, ...children) =>
    el(
      "div.column",
      { role: "group", "aria-label": text },
      el("span", text.replaceAll("_", " ")),
      ...children,
      el("button.remove", { text: "×", title, "aria-label": title, on: { click: remove } }),
    );
  function column(name) {
    const about = describe(name),
      filter = page.settings.columns[name] || {};
    const remove = () => {
      opened = "";
      if (name in page.settings.columns) setColumn(name, null);
      else drawFilters();
    };
    const editor =
      about.low !== undefined
        ? rangeInputs(about, filter)
        : about.values
          ? [valueButton(about, filter), opened === name && valueList(about, filter)]
          : [textInput(name, filter)];
    return chip(name, `remove the filter on ${name.replaceAll("_", " ")}`, remove, ...editor);
  }
  function rangeInputs({ name, low, high }, filter) {
    const field = (end, placeholder) =>
      el("input", {
        type: "number",
        step: "any",
        value: filter[end] ?? "",
        placeholder: String(placeholder),
        "aria-label": `${name.replaceAll("_", " ")} ${end}`,
        on: {
          change: (e) => {
            const { [end]: _, ...other } = page.settings.columns[name] || {};
            const next = e.target.value === "" ? other : { ...other, [end]: +e.target.value };
            setColumn(name, Object.keys(next).length ? next : null);
          },
        },
      });
    return [field("from", low), "to", field("to", high)];
  }
  function valueButton({ name, values }, filter) {
    const chosen = filter.values || [];
    return el("button.plain", {
      text: !chosen.length ? "choose…" : chosen.length > 2 ? `${chosen.length} of ${values.length}` : chosen.join(", "),
      "aria-expanded": String(opened === name),
      on: {
        click: () => {
          opened = opened === name ? "" : name;
          drawFilters();
        },
      },
    });
  }
  function valueList({ name, values }, filter) {
    const chosen = new Set(filter.values || []);
    const boxes = values.map((value) =>
      el(
        "label",
        el("input", {
          type: "checkbox",
          checked: chosen.has(value),
          on: {
            change: (e) => {
              if (e.target.checked) chosen.add(value);
              else chosen.delete(value);
              setColumn(name, chosen.size ? { values: values.filter((one) => chosen.has(one)) } : null);
            },
          },
        }),
        el("span", value),
      ),
    );
    const close = (e) => {
      if (e.key !== "Escape") return;
      opened = "";
      e.stopPropagation();
      drawFilters();
    };
    return el("div.values", { role: "group", "aria-label": `values of ${name}`, on: { keydown: close } }, ...boxes);
  }
  function textInput(name, filter) {
    return el("input", {
      type: "search",
      value: filter.contains || "",
      placeholder: "contains…",
      "aria-label": `${name.replaceAll("_", " ")} contains`,
      maxLength: 200,
      on: { change: (e) => setColumn(name, e.target.value ? { contains: e.target.value } : null) },
    });
  }

  Object.assign(page, { drawFilters, toggleFilters, clearFilters, countFilters });
}
