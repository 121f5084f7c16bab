"""Benchmark of the review page: server, sprite sheets, and the page in headless Chromium.

    python scripts/bench_review.py <work> [--samples 200000] [--groups 400] [--size 40]

Writes that many small images, a synthetic audit and a random order below <work> (once; of the images at most
:data:`MAX_DRAWN` are drawn, the others are links to these), starts `mlfix review` on them, and measures in a real
browser: cutting sprite sheets, time to the first tiles, frames of a long scroll, jumps to groups, marks until they are
on disk, and the memory of both. Needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlfix_train.audit.similarity.order_files import samples_fingerprint, write_order

MAX_DRAWN = 20_000
REPO = Path(__file__).resolve().parents[1]
REVIEW = "document.querySelector('[data-mlfix-review]').review"
FRAMES = """async ({speed, seconds}) => {
  const review = REVIEW, scroller = review.scroller, times = [];
  let before = performance.now(), end = 0;
  scroller.scrollTop = review.layout().height / 3;
  await new Promise((done) => setTimeout(done, 700));
  before = await new Promise(requestAnimationFrame); end = before + 1000 * seconds;
  await new Promise((done) => {
    const step = (now) => {
      times.push(now - before);
      scroller.scrollTop += speed * (now - before) / 1000;
      before = now;
      now < end ? requestAnimationFrame(step) : done();
    };
    requestAnimationFrame(step);
  });
  return times.slice(1);
}""".replace("REVIEW", REVIEW)
READY = (
    f"() => new Promise((done) => {{ const look = () => {REVIEW}?.painted() ? done(performance.now()) : "
    "requestAnimationFrame(look); look(); })"
)
JUMP = """async (g) => {
  const review = REVIEW, began = performance.now();
  review.scroller.scrollTop = review.layout().tops[g];
  await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);
  while (!review.painted()) await new Promise(requestAnimationFrame);
  return performance.now() - began;
}""".replace("REVIEW", REVIEW)
MARKED = """() => new Promise((done) => {
  addEventListener("pointerup", () => {
    const began = performance.now();
    const look = () => REVIEW.saved() ? done(performance.now() - began) : setTimeout(look, 0);
    setTimeout(look, 0);
  }, { once: true });
})""".replace("REVIEW", REVIEW)


def draw(root: Path, samples: int, groups: int, size: int) -> None:
    """Writes the images: a shape in the group's color on noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size - 0.5
    noise = rng.normal(0, 14, (64, size, size, 3))
    for number in range(samples):
        group = number % groups
        folder = root / f"regulatory--sign-{group:03d}--g1"
        if number < groups:
            folder.mkdir(parents=True, exist_ok=True)
        if number >= (drawn := max(MAX_DRAWN // groups, 1) * groups):
            os.link(folder / f"{number % drawn:06d}.jpg", folder / f"{number:06d}.jpg")
            continue
        local = np.random.default_rng(number)
        r = np.hypot(x - local.uniform(-0.1, 0.1), y - local.uniform(-0.1, 0.1))
        shape = (r < 0.36)[..., None] * (1 - 0.7 * (r < 0.27)[..., None])
        color = np.array([(group * 37) % 200, (group * 91) % 200, (group * 53) % 200]) + 55
        pixels = 90 * local.uniform(0.4, 1.6) * (1 - shape) + shape * color + noise[number % 64]
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:06d}.jpg", quality=88)
        if number % 20_000 == 0:
            print(f"drawing images: {number:,} of {samples:,}", file=sys.stderr)


def write_audit(root: Path, audit: Path) -> None:
    """Writes an audit and an order as `mlfix audit` and `mlfix sort` would, with random scores and positions."""
    ids = sorted(f"{folder.name}/{name}" for folder in root.iterdir() if folder.is_dir() for name in os.listdir(folder))
    rng = np.random.default_rng(1)
    labels = sorted({name.split("/")[0] for name in ids})
    given = np.array([name.split("/")[0] for name in ids])
    suspicion = np.where(rng.random(len(ids)) < 0.02, rng.beta(8, 2, len(ids)), rng.beta(0.4, 30, len(ids)))
    other = np.array(labels)[rng.integers(len(labels), size=len(ids))]
    predicted = np.where(suspicion > 0.3, other, given)
    frame = pd.DataFrame(
        {
            "sample_id": ids,
            "given_label": given,
            "predicted_label": predicted,
            "suggested_label": predicted,
            "suspicion": suspicion.round(5),
            "label_score": (1 - suspicion).round(5),
            "is_label_issue": (suspicion > 0.5) & (predicted != given),
            "slice": given,
            "evidence": suspicion,
            **{
                name: rng.random(len(ids)).round(4)
                for name in (
                    "loss",
                    "self_confidence",
                    "aum",
                    "neighbour_disagreement",
                    "twin_disagreement",
                    "outlierness",
                    "disagreement",
                )
            },
        }
    ).sort_values("suspicion", ascending=False)
    frame["rank"] = np.arange(1, len(frame) + 1)
    order = pd.DataFrame({"sample_id": ids, "label": given, "position": rng.permutation(len(ids))})
    order["duplicate_group"] = -1
    order["label_position"] = order.groupby("label")["position"].rank().astype(int) - 1
    for name in ("outlier_score", "label_outlier_score"):
        order[name] = rng.gamma(10, 0.1, len(ids))
    audit.mkdir(parents=True, exist_ok=True)
    write_order(order, audit.with_name("order") / "order.parquet", {"samples": samples_fingerprint(ids)})
    frame.to_csv(audit / "ranking.csv", index=False)
    about = {"ranked": len(frame), "run_paths": [], "label_names": labels, "estimates": {"wrong": suspicion.sum()}}
    (audit / "audit.json").write_text(json.dumps(about))


def memory(pids: list[int]) -> float:
    """Returns the proportional set size of processes, MB."""
    total = 0
    for pid in pids:
        try:
            total += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
        except (OSError, TypeError):
            continue
    return total / 1024


def children(parent: int) -> list[int]:
    """Returns a process and all below it."""
    found, rest = [], [parent]
    while rest:
        pid = rest.pop()
        found.append(pid)
        try:
            rest += [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            continue
    return found


def cutting(work: Path, args: argparse.Namespace) -> float:
    """Cuts all sheets of the default view, as the server does ahead; returns tiles a second."""
    code = (
        "import json,shutil,sys,time; from mlfix_train.config.compose import load;"
        "from mlfix_train.commands.review import open_configured_session;"
        "from mlfix_train.audit.review.server import SpritePrefetcher;"
        "session=open_configured_session(load('review',sys.argv[1:]));sprites=session.sprites;"
        "shutil.rmtree(sprites.folder);sprites.folder.mkdir();sprites._on_disk.clear();"
        "session.view({'group_by':'label'});session.last_request=0;key=session.current_view;"
        "began=time.perf_counter();SpritePrefetcher(session).cut_view(key);"
        "print(json.dumps([session.sprites_ready[1],time.perf_counter()-began]));session.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *keys(work, args)], capture_output=True, text=True, check=True, cwd=work
    )
    count, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"cutting sprite sheets     {count / seconds:,.0f} tiles/s ({count:,} tiles, {seconds:.1f} s)")
    return count / seconds


MANY = """
import json, shutil, sys, time
import numpy as np
from mlfix_train.audit.review.journal import Journal
from mlfix_train.audit.review.marks import MarkStore
from mlfix_train.commands.review import open_configured_session
from mlfix_train.config.compose import load
shutil.rmtree(sys.argv[1], ignore_errors=True)
session = open_configured_session(load("review", sys.argv[2:] + ["out=" + sys.argv[1]]))
ids, costs, done = session.samples.ids.tolist(), [], 0
mark = lambda names: session.handle("marks", {"marks": [{"sample_id": name, "new_label": "invalid"} for name in names]})
for count in (500, 10_000, 50_000):
    while done < count - 60:
        step = min(20_000, count - 60 - done)
        mark(ids[done : done + step])
        done += step
    seconds = []
    for done in range(done + 1, count + 1):
        began = time.perf_counter()
        mark(ids[done - 1 : done])
        seconds.append(time.perf_counter() - began)
    costs.append([count, 1000 * float(np.median(seconds))])
session.close()
began = time.perf_counter()
MarkStore(session.samples, Journal(session.store.journal.path))
print(json.dumps([costs, time.perf_counter() - began]))
"""


def many_marks(work: Path, args: argparse.Namespace) -> None:
    """Prints what a mark costs the server when there are many, and how long their journal takes to replay."""
    given = [str(work / "many"), *(one for one in keys(work, args) if not one.startswith("out="))]
    done = subprocess.run([sys.executable, "-c", MANY, *given], capture_output=True, text=True, check=True, cwd=work)
    medians, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    costs = ", ".join(f"{cost:.1f} ms with {count:,}" for count, cost in medians)
    print(f"a mark costs the server   {costs} marks (median); their journal is replayed in {seconds:.1f} s")


def keys(work: Path, args: argparse.Namespace) -> list[str]:
    """Returns the keys of `mlfix review`."""
    folders = {"audit": "audit", "data.root": "pictures", "out": "review", "order": "order", "pixels.cache": "pixels"}
    return [*(f"{key}={work / name}" for key, name in folders.items()), f"pixels.size={args.size}"]


def serve(work: Path, args: argparse.Namespace) -> tuple[subprocess.Popen[str], str, float]:
    """Starts the server; returns it, its link, and how long that took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlfix_train.cli.main", "review", *keys(work, args), "open=false", "port=0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert process.stdout
    for line in process.stdout:
        found = re.search(r"http\S+", line)
        if found:
            return process, found[0], time.perf_counter() - began
    raise SystemExit("the server did not start")


def quantile(values: list[float], q: float) -> float:
    """Returns a quantile."""
    return float(np.quantile(values, q))


def spread(values: list[float]) -> str:
    """Formats a distribution of milliseconds."""
    return (
        f"median {quantile(values, 0.5):.0f} ms, 95% under {quantile(values, 0.95):.0f} ms, worst "
        f"{max(values):.0f} ms ({len(values)} times)"
    )


def browse(link: str, server: subprocess.Popen[str]) -> None:
    """Measures the page."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto("about:blank")
        own = next(
            pid for pid in children(os.getpid()) if "--headless" in cmdline(pid) and "--type=" not in cmdline(pid)
        )
        idle = memory(children(own))
        page.goto(link)
        first = page.evaluate(READY)
        page.reload()
        again = page.evaluate(READY)
        print(f"first tiles painted       {first:,.0f} ms after the link was opened ({again:,.0f} ms on reload)")
        time.sleep(3)
        for speed in (1500, 6000):
            frames = page.evaluate(FRAMES, {"speed": speed, "seconds": 8})
            share = 100 * np.mean(np.array(frames) < 20)
            print(
                f"scrolling {speed:>5} px/s       {share:.1f}% of {len(frames)} frames "
                f"under 20 ms, 95% under {quantile(frames, 0.95):.1f} ms, worst {max(frames):.0f} ms"
            )
        rng = np.random.default_rng(0)
        count = page.evaluate(f"{REVIEW}.view().sizes.length")
        jumps = [page.evaluate(JUMP, int(g)) for g in rng.permutation(count)[:60]]
        print(f"jump to a group           {spread(jumps)}")
        marks = []
        for number in range(120):
            if number % 40 == 0:
                page.evaluate(JUMP, int(rng.integers(count)))
            shown = page.evaluate(f"{REVIEW}.visible()")
            at = page.evaluate(f"{REVIEW}.rect({shown[number % 40]})")
            page.mouse.move(at["x"], at["y"])
            handle = page.evaluate_handle(f"() => ({{ promise: ({MARKED})() }})")
            page.mouse.down()
            page.mouse.up()
            marks.append(handle.evaluate("(one) => one.promise"))
            time.sleep(0.1)  # quick as a person is, not quicker
        print(f"mark to disk              {spread(marks)}")
        renderers = [pid for pid in children(own) if "--type=renderer" in cmdline(pid)]
        own_page = max(memory([pid]) for pid in renderers)
        print(
            f"browser                   {own_page:.0f} MB for the page's process; "
            f"{memory(children(own)):.0f} MB for all, {idle:.0f} MB of them with an empty page"
        )
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
        print(f"server                    {int(peak[1]) / 1024 if peak else 0:.0f} MB at most")
        browser.close()


def cmdline(pid: int) -> str:
    """Returns how a process was started."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def sizes() -> None:
    """Prints how large the page is."""
    from mlfix_train.audit.review.bundle import ASSETS, bundle_script
    from mlfix_train.audit.review.server import render_page

    texts = {"scripts": bundle_script().encode(), "review.css": (ASSETS / "review.css").read_bytes()}
    texts["page"] = render_page("x").encode()
    parts = ", ".join(f"{name} {len(text) / 1000:.1f} kB" for name, text in texts.items())
    packed = sum(len(gzip.compress(text)) for text in texts.values())
    total = sum(map(len, texts.values()))
    print(f"page and module           {packed / 1000:.1f} kB as sent, {total / 1000:.1f} kB unpacked ({parts})")


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--groups", type=int, default=400)
    parser.add_argument("--size", type=int, default=40)
    args = parser.parse_args()
    work = args.work.resolve()
    if not (work / "audit" / "audit.json").exists():
        draw(work / "pictures", args.samples, args.groups, args.size)
        write_audit(work / "pictures", work / "audit")
    for name in ("journal.jsonl", "seen.jsonl", "fixes.csv", "reviewer_state.json"):
        (work / "review" / name).unlink(missing_ok=True)
    sizes()
    cutting(work, args)
    many_marks(work, args)
    server, link, seconds = serve(work, args)
    try:
        print(f"server listens            after {seconds:.1f} s (order and pixels are there)")
        browse(link, server)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
