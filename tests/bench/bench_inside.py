"""Screens a second of a game inside a world model, in Chromium: `python -m
tests.bench.bench_inside --model RUN [--seconds 10] [--speed 60] [--agent POLICY] [--shot FILE]`,
or `--page FILE` for a page of `genray export RUN --format html`, which has no service.

Serves the model in this process, opens its page, holds an arrow key, and counts the screens that
the page has drawn. The service, the network and the browser share the machine's cores. A page
without a service makes and paints steps as fast as it can.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.common import describe_machine, last_json_line, print_table
from tests.helpers.browser import CHROMIUM
from tests.serve.conftest import start_web, stop_web

AS_FAST_AS_IT_CAN = """([start, seconds, byAgent]) => {
    game.begin(start, 0);
    const context = document.getElementById("screen").getContext("2d"), begin = performance.now();
    let steps = 0;
    for (; performance.now() - begin < 1000 * seconds; steps++) {
        game.step(byAgent ? game.agent.act() : steps % game.about.actions.length);
        game.screen.show(context, game.painted());
        if (game.over) game.begin(start, steps);
    }
    return [steps, (performance.now() - begin) / 1000];
}"""


def measure_page(browser: Any, options: argparse.Namespace) -> None:
    """Print how fast a page without a service is loaded, and makes and paints steps."""
    page, begin = browser.new_page(viewport={"width": 1280, "height": 900}), time.monotonic()
    page.goto(options.page.absolute().as_uri())
    page.wait_for_function("window.game !== undefined")
    loaded = time.monotonic() - begin
    print(f"{options.page.stat().st_size / 1e6:.1f} MB, {loaded:.1f} s until it can start")
    result: dict[str, Any] = {"load_s": loaded}
    rows = []
    for plays in ("fixed actions", "agent"):
        by_agent = plays == "agent"
        if by_agent and not page.evaluate("Boolean(game.agent)"):
            continue
        page.evaluate(AS_FAST_AS_IT_CAN, [options.start, 1, by_agent])  # compiles the scripts
        steps, wall = page.evaluate(AS_FAST_AS_IT_CAN, [options.start, options.seconds, by_agent])
        rows.append([plays, steps, f"{steps / wall:.1f}"])
        result[plays] = {"screens_per_s": steps / wall, "screens": steps}
    if options.shot:
        page.screenshot(path=str(options.shot))
    print_table(
        "A game inside a world model, on a page without a service, in Chromium",
        ["who plays", "screens", "screens a second"],
        rows,
    )
    print(describe_machine())
    last_json_line(result)


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="run or model directory")
    what.add_argument("--page", type=Path, help="page of `genray export --format html`")
    parser.add_argument("--agent", type=Path, help="run or model directory of a policy that plays")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--speed", type=int, default=60, choices=(5, 15, 30, 60))
    parser.add_argument("--start", type=int, default=0, help="one of the real screens")
    parser.add_argument("--shot", type=Path, help="PNG of the page at the end")
    options = parser.parse_args()
    if options.page:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            measure_page(browser, options)
            browser.close()
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, path in (("game", options.model), ("agent", options.agent)):
            if path:
                inner = path / "model"
                (Path(folder) / name).symlink_to((inner if inner.is_dir() else path).absolute())
        web = start_web(Path(folder))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{web.url}/?model=game&fps={options.speed}&start={options.start}")
            page.click("button:text-is('Start')")
            caption = page.locator(".output figcaption")

            def step() -> int:
                found = re.match(r"\d+", caption.inner_text())
                return int(found[0]) if found else 0

            while step() < 5:
                time.sleep(0.05)
            page.keyboard.press("m") if options.agent else page.keyboard.down("ArrowLeft")
            first, begin, cpu = step(), time.monotonic(), time.process_time()
            time.sleep(options.seconds)
            drawn, wall = step() - first, time.monotonic() - begin
            cpu = time.process_time() - cpu
            text = caption.inner_text()
            if options.shot:
                page.screenshot(path=str(options.shot))
            browser.close()
        stop_web(web)
    rate = drawn / wall
    print_table(
        "A game inside a world model, in Chromium",
        ["screens", "seconds", "screens a second", "CPU seconds of the service"],
        [[drawn, f"{wall:.1f}", f"{rate:.1f}", f"{cpu:.1f}"]],
    )
    print(f"the page says: {text}")
    print(describe_machine())
    last_json_line({"screens_per_s": rate, "screens": drawn, "service_cpu_s": cpu})


if __name__ == "__main__":
    main()
