// Samples and images: blocks of samples and sprite sheets are requested as they come into view, and the farthest are
// dropped.

import { MAX_BLOCKS } from "./elements.js";

const MAX_BITMAP_BYTES = 72e6;

export function addLoading(page) {
  let bitmapBytes = 0;
  function cell(index) {
    const block = page.blocks.get(Math.floor(index / page.session.block_size));
    return block && !block.waits ? { block, i: index % page.session.block_size } : null;
  }
  function large() {
    return (
      page.session.large[0] > page.session.small[0] && page.layout.size * devicePixelRatio > page.session.small[0] * 1.2
    );
  }
  function sheetOf(block, i) {
    if (!large()) return { name: block.small, side: page.session.small[0], columns: page.session.small[1], i };
    const per = page.session.large[1] ** 2;
    return {
      name: block.large[Math.floor(i / per)],
      side: page.session.large[0],
      columns: page.session.large[1],
      i: i % per,
    };
  }
  function bitmap(name) {
    const found = page.bitmaps.get(name);
    if (found) {
      page.bitmaps.delete(name);
      page.bitmaps.set(name, found);
    }
    return found;
  }
  function enqueueLoad(key, callback) {
    if (!page.loading.has(key) && !page.loadQueue.some((one) => one.key === key))
      page.loadQueue.push({ key, callback });
  }
  function startLoading() {
    while (page.loading.size < 6 && page.loadQueue.length) {
      const { key, callback } = page.loadQueue.shift();
      page.loading.add(key);
      callback()
        .catch((error) => {
          if (error.status === 410) page.openView(page.currentPosition());
          else page.schedule(page.refresh, 1500);
        })
        .finally(() => {
          page.loading.delete(key);
          if (!page.closed) {
            startLoading();
            page.refresh();
          }
        });
    }
  }
  function loadBlock(number) {
    if (number < 0 || number * page.session.block_size >= page.view.count || page.blocks.has(number)) return;
    const of = page.view.view;
    enqueueLoad(`${of}:${number}`, async () => {
      const response = await page.request("block", { view: of, number, brighten: page.settings.brighten });
      if (!page.view || page.view.view !== of) return;
      storeBlock(number, response);
      if (page.current >= 0 && Math.floor(page.current / page.session.block_size) === number)
        page.setCurrent(page.current);
    });
  }
  function storeBlock(number, response) {
    page.blocks.set(number, response);
    response.rows.forEach((row, i) => page.indexOfRow.set(row, number * page.session.block_size + i));
    for (const item of page.queue)
      for (const one of item.marks || []) {
        const i = response.rows.indexOf(one.row);
        if (i >= 0) response.marks[i] = one.mark;
      }
    while (page.blocks.size > MAX_BLOCKS) {
      const [far] = [...page.blocks.keys()].sort((a, b) => Math.abs(b - number) - Math.abs(a - number));
      for (const row of page.blocks.get(far).rows) page.indexOfRow.delete(row);
      page.blocks.delete(far);
    }
    redrawBlock(number);
    page.refresh();
  }
  function loadSheet(name) {
    if (!name || page.bitmaps.has(name)) return;
    enqueueLoad(name, async () => {
      const image = await createImageBitmap(await page.connection.image("sprites", name));
      if (page.closed) {
        image.close();
        return;
      }
      page.bitmaps.set(name, image);
      bitmapBytes += image.width * image.height * 4;
      for (const [old, one] of page.bitmaps) {
        if (bitmapBytes <= MAX_BITMAP_BYTES || old === name) break;
        page.bitmaps.delete(old);
        bitmapBytes -= one.width * one.height * 4;
        one.close();
      }
      for (const strip of page.strips.values()) if (strip.missing.has(name)) strip.dirty = true;
      for (const node of page.sections.values()) if (node.missing?.has(name)) page.drawTypicalRow(node);
      if (page.labelDialog.open) page.fillLabelDialog();
      if (page.missingInView.has(name)) page.drawInspector();
    });
  }
  function redrawBlock(number) {
    for (const strip of page.strips.values()) if (strip.missing.has(number)) strip.dirty = true;
  }

  Object.assign(page, { cell, large, sheetOf, bitmap, startLoading, loadBlock, storeBlock, loadSheet });
}
