"""Benchmark of the review page's map: frames while it is moved and enlarged, in headless Chromium.

    python scripts/bench_map.py <work> [--samples 200000]

Opens a review of made-up samples with a made-up map in <work>, moves it and then enlarges it for some seconds each,
and prints the frames. Needs Chromium and Playwright; without a graphics card, Chromium draws with the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from mlfix_train.audit.review import image_map, server
from mlfix_train.audit.review.session import ReviewSession, open_session
from mlfix_train.audit.similarity.order_files import KeptEmbeddings

REVIEW = "document.querySelector('[data-mlfix-review]').review"
FRAMES = """async ({moves, seconds}) => {
  const canvas = document.querySelector(".plane canvas"), bounds = canvas.getBoundingClientRect(), times = [],
    at = (x, y) => ({ bubbles: true, cancelable: true, pointerId: 1, clientX: bounds.x + bounds.width / 2 + x,
      clientY: bounds.y + bounds.height / 2 + y });
  canvas.setPointerCapture = () => {};
  if (moves) canvas.dispatchEvent(new PointerEvent("pointerdown", { ...at(0, 0), shiftKey: true }));
  let before = await new Promise(requestAnimationFrame);
  const began = before;
  for (let t = 0; t < seconds; ) {
    const now = await new Promise(requestAnimationFrame);
    times.push(now - before);
    before = now;
    t = (now - began) / 1000;
    if (moves) canvas.dispatchEvent(new PointerEvent("pointermove", at(200 * Math.sin(3 * t), 120 * Math.sin(2 * t))));
    else canvas.dispatchEvent(new WheelEvent("wheel", { ...at(0, 0), deltaY: -30 * Math.cos(1.2 * t) }));
  }
  if (moves) canvas.dispatchEvent(new PointerEvent("pointerup", at(0, 0)));
  return times;
}"""


def make_session(out: Path, n: int) -> ReviewSession:
    """Opens a review of ``n`` samples in 40 labels, with a map of 300 heaps."""
    rng = np.random.default_rng(0)
    labels = [f"label {code:02d}" for code in rng.integers(40, size=n)]
    ids = [f"{label}/{number:06d}.jpg" for number, label in enumerate(labels)]
    index = pd.Index(ids, name="sample_id")
    table = pd.DataFrame({"path": ids, "label": labels, "group": np.arange(n), "split": ""}, index=index)
    suspicion = rng.beta(0.4, 5, n)
    named = {"given_label": labels, "predicted_label": labels, "suggested_label": labels}
    ranking = pd.DataFrame({"sample_id": ids, **named, "suspicion": suspicion, "is_label_issue": suspicion > 0.5})
    heaps = rng.normal(0, 6, (300, 2))[rng.integers(300, size=n)]
    places = (heaps + rng.normal(size=(n, 2)) * rng.gamma(2, 0.3, (n, 1))).astype(np.float32)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "embeddings.npy", places)
    kept = KeptEmbeddings(out / "embeddings.npy", ids, "made up")
    np.savez(out / "map.npz", key=image_map._key(kept), places=places)
    images = np.zeros((n, 8, 8, 3), np.uint8)
    return open_session(table, images, out, ranking=ranking, title="map", find_embeddings=lambda: kept)


def main() -> None:
    """Serves the session in a thread, and measures."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--samples", type=int, default=200_000)
    args = parser.parse_args()
    session, links = make_session(args.work, args.samples), list[str]()
    listener = server.open_socket("127.0.0.1", 0)
    with mock.patch.object(uvicorn.Server, "capture_signals", return_value=contextlib.nullcontext()):
        threading.Thread(target=server.serve, args=(session, listener, "127.0.0.1", links.append), daemon=True).start()
        while not links:
            time.sleep(0.05)
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(links[0])
        page.wait_for_function(f"() => {REVIEW}?.ready()")
        page.keyboard.press("m")
        page.wait_for_function(f"() => {REVIEW}.map().drawn === {args.samples} && {REVIEW}.map().isDrawn")
        for what in ("moved", "enlarged"):
            frames = np.array(page.evaluate(FRAMES, {"moves": what == "moved", "seconds": 6}))
            print(
                f"{what:<9} {1000 * len(frames) / frames.sum():.1f} frames/s, {100 * np.mean(frames < 20):.1f}% under "
                f"20 ms, 95% under {np.quantile(frames, 0.95):.0f} ms, worst {frames.max():.0f} ms "
                f"({args.samples:,} points)"
            )
        browser.close()
    session.close()


if __name__ == "__main__":
    main()
