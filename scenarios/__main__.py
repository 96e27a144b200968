"""Run the cells of the scenario table and write docs/scenarios.md.

    python -m scenarios                     # what has not been measured yet with this code
    python -m scenarios --only translation  # cells whose name has this in it; several are alternatives
    python -m scenarios --any-code          # what was measured with an earlier trainer stays
    python -m scenarios --write             # runs nothing, writes the page
    python -m scenarios --list              # cells and their state

Cells of one process run beside each other, a core to each; then those of several processes, one after another.
Safe to interrupt: what is measured is kept, and the cells that were running begin again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from rich.console import Console
from rich.markup import escape

from examples.prepare_model import prepare as prepare_decoder
from scenarios import measure, page
from scenarios.rows import prepare_encoder, prepare_rows
from scenarios.table import CELLS, DECODER, ENCODER, Cell
from tests.support.paths import CACHE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scenarios.md"
RESULTS = Path(__file__).parent / "results"
INTERRUPTED = 130
BYTES_OF_A_CELL = 4 << 30
"""Memory that a cell may need."""

console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line."""
    console.print(escape(text))


def main() -> int:
    """Entry point: 1 where a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="TEXT", help="cells whose name has this in it, or is it")
    parser.add_argument("--any-code", action="store_true", help="keep what was measured with an earlier trainer")
    parser.add_argument("--again", action="store_true", help="run also what has been measured")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--list", action="store_true", help="only list the cells and their state")
    arguments = parser.parse_args()
    folders = measure.Folders(CACHE / "scenarios", CACHE / "models", RESULTS)
    folders.root.mkdir(parents=True, exist_ok=True)
    prepare_rows(folders.rows)
    chosen = [cell for cell in CELLS if not arguments.only or any(text in cell.name for text in arguments.only)]
    if not chosen:
        say(f"--only: found {', '.join(arguments.only)}, allowed: part of a name such as {CELLS[0].name}")
        return 64
    results, admitted = known(folders)
    if arguments.list:
        for cell in chosen:
            outcome = results.get(cell.name, page.NOT_RUN)
            say(f"{cell.name}: {outcome.status}{f': {outcome.reason}' if outcome.reason else ''}")
        return 0
    waiting = [] if arguments.write else [cell for cell in chosen if cell.name in admitted]
    if not arguments.again:
        old = set() if arguments.any_code else measure.older(results, admitted)
        waiting = [
            cell for cell in waiting if cell.name in old or results.get(cell.name, page.NOT_RUN).status != "measured"
        ]
    code = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if waiting:
        prepare_encoder(folders.models / ENCODER)
        prepare_decoder(folders.models / DECODER)
        if not all_of(waiting, folders, admitted, results):
            say("interrupted: the same command goes on")
            code = INTERRUPTED
    PAGE.write_text(page.page(results, measure.older(results, admitted)), encoding="utf-8")
    say(f"{PAGE} written")
    return code or int(any(results[cell.name].status == "failed" for cell in waiting))


def known(folders: measure.Folders) -> tuple[dict[str, measure.Outcome], dict[str, measure.Admitted]]:
    """Return what is known of each cell as it is defined now, and those that can be run."""
    results, admitted = {}, {}
    for cell in CELLS:
        found = measure.admit(cell, folders)
        if isinstance(found, measure.Outcome):
            results[cell.name] = found
            continue
        admitted[cell.name] = found
        outcome = measure.load(folders, cell)
        if outcome and outcome.key == found.key:
            results[cell.name] = outcome
    return results, admitted


def all_of(
    cells: list[Cell],
    folders: measure.Folders,
    admitted: dict[str, measure.Admitted],
    results: dict[str, measure.Outcome],
) -> bool:
    """Run cells, and put what came of each into the results; return whether that was not interrupted."""
    cores = sorted(os.sched_getaffinity(0))
    alone = [cell for cell in cells if not cell.technique.strategy]
    together = [cell for cell in cells if cell.technique.strategy]
    done, stop = itertools.count(1), Event()

    def one(cell: Cell, own: Collection[int]) -> None:
        say(f"{cell.name} …")
        begin = time.monotonic()
        with suppress(measure.Interrupted):
            results[cell.name] = outcome = measure.run(cell, folders, admitted[cell.name], own, stop)
            metric = cell.scenario.metric
            found = f"{metric} {outcome.base.get(metric)} → {outcome.tuned.get(metric)}"
            if outcome.status == "failed":
                found = f"{outcome.reason} (log: {folders.log(cell, admitted[cell.name].key)})"
            say(f"{next(done)}/{len(cells)}  {cell.name}: {found} in {time.monotonic() - begin:.0f} s")

    free: SimpleQueue[int] = SimpleQueue()
    for core in cores[: max(1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // BYTES_OF_A_CELL)]:
        free.put(core)

    def on_a_core(cell: Cell) -> None:
        core = free.get()
        one(cell, {core})
        free.put(core)

    with ThreadPoolExecutor(free.qsize()) as pool:
        running = [pool.submit(on_a_core, cell) for cell in alone]
        try:
            for future in running:
                future.result()
            for cell in together:
                pool.submit(one, cell, cores).result()
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return not stop.is_set()


if __name__ == "__main__":
    sys.exit(main())
