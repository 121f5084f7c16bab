// The address of the page holds its view: a copied link opens the same one, at the same group.

import { VIEW_DEFAULTS } from "./filters.js";

export function addLinks(page) {
  let written = "";
  function linkHash() {
    const params = new URLSearchParams(),
      left = page.isSimilar() ? page.home() : null, // a row number is no address
      settings = { ...page.settings, ...left?.settings };
    for (const name of Object.keys(VIEW_DEFAULTS)) {
      const value = settings[name];
      if (name === "columns" ? Object.keys(value).length : value)
        params.set(name, name === "columns" ? JSON.stringify(value) : value);
    }
    const group = left ? left.position?.name : page.view?.names.length > 1 && page.view.names[page.currentSideGroup];
    if (group) params.set("group", group);
    return `#${params}`;
  }
  /** Takes over the view that the address holds, if any; returns its position. */
  function readLink() {
    const params = new URLSearchParams(page.options.whole ? location.hash.slice(1) : "");
    if (!params.has("group_by")) return null;
    const settings = { ...VIEW_DEFAULTS };
    for (const name of Object.keys(settings)) if (params.has(name)) settings[name] = params.get(name);
    settings.min_suspicion = Number(settings.min_suspicion) || 0;
    try {
      settings.columns = JSON.parse(params.get("columns") || "{}");
    } catch {
      settings.columns = {};
    }
    Object.assign(page.settings, settings);
    written = location.hash;
    return { name: params.get("group") };
  }
  function writeLink() {
    if (!page.options.whole || !page.view || page.app.classList.contains("busy")) return;
    const hash = linkHash();
    if (hash === written) return;
    written = hash;
    history.replaceState(null, "", hash);
  }
  async function copyLink() {
    writeLink();
    try {
      await navigator.clipboard.writeText(location.href);
      page.showToast("Copied: a link to this view.");
    } catch {
      page.showToast("Copy the address of the page: it opens this view.");
    }
  }
  function follow() {
    if (page.closed || !page.session || location.hash === written) return;
    const position = readLink();
    if (!position) return;
    page.drawBar();
    page.openView(position);
  }
  if (page.options.whole) addEventListener("hashchange", follow);

  Object.assign(page, { readLink, writeLink, copyLink });
}
