"""All questions, each in a process of its own: ``python -m benchmarks.run [--full] [--resume] [QUESTION ...]``.

Each answer is kept as soon as it is there, and the page is written from what is kept: a run that was interrupted goes
on with ``--resume``, which leaves out what the same form has answered today.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import datetime, timezone

from benchmarks import page
from benchmarks.harness import RESULTS, ROOT

DEADLINE_S = 3600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", choices=[[], *page.ORDER], default=[], metavar="QUESTION")
    parser.add_argument("--full", action="store_true", help="more rounds: half an hour instead of minutes")
    parser.add_argument("--resume", action="store_true", help="leave out what was answered today in this form")
    asked = parser.parse_args()
    broken = [name for name in asked.questions or page.ORDER if not _answer(name, full=asked.full, resume=asked.resume)]
    page.main()
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _answer(name: str, *, full: bool, resume: bool) -> bool:
    """Ask one question; return whether it was answered."""
    if resume and _is_answered(name, "full" if full else "short"):
        print(f"{name}: answered today", flush=True)
        return True
    began_s = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--full"] if full else [])]
    try:
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=DEADLINE_S).returncode == 0
    except subprocess.TimeoutExpired:
        done = False
    print(f"({name}: {time.monotonic() - began_s:.0f} s)", flush=True)
    return done


def _is_answered(name: str, form: str) -> bool:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return False
    kept = json.loads(path.read_text())
    return bool(kept["form"] == form and kept["at"] == datetime.now(timezone.utc).strftime("%Y-%m-%d"))


if __name__ == "__main__":
    sys.exit(main())
