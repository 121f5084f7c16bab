// The order by similarity, when it is there after the page was opened: tiles only move when the reviewer says so.

import { el } from "./elements.js";

export function addOrder(page) {
  const offer = el("div.hint", { hidden: true, role: "status" });
  page.hint.after(offer);
  function offerOrder() {
    page.session.sorted = true;
    offer.hidden = false;
    offer.replaceChildren(
      el("span", "The images are sorted now: similar ones can be side by side."),
      el("button.plain", { text: "Sort by similarity", on: { click: showOrder } }),
      el("button.plain", { text: "Not now", on: { click: close } }),
    );
  }
  function close() {
    offer.hidden = true;
    page.scroller.focus({ preventScroll: true });
  }
  async function showOrder() {
    try {
      const { typical, typical_sheets } = await page.request("describe", { brighten: page.settings.brighten });
      Object.assign(page.session, { typical, typical_sheets });
      if (!page.session.audited) page.settings.sort_by = "visual";
      page.drawBar();
      close();
      page.openView(page.currentPosition());
    } catch (error) {
      page.showProblem(error);
    }
  }

  Object.assign(page, { offerOrder });
}
