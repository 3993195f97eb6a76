"""The faults of `soak.py` that are not of training: kills of `encode`, a million sentences, made-up input, packages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from soak import Soak

ROOT = Path(__file__).resolve().parents[1]
WORDS = "the a of in on small large red blue green quick slow cat dog bird house river road man woman".split()
ROWS_KILLED, ROWS_OF_LOAD = 200_000, 1_000_000
FUZZ_TIMES = 40
"""How many times the 500 cases of the suite."""


def killed_encodes(soak: Soak) -> dict[str, Any]:
    """SIGKILL ten times to one embedding of a file; then every id is there once, and the files are equal."""
    whole = soak.encode("encoded-whole", ROWS_KILLED)
    whole.wait(timeout=1200)
    killed = inside = 0
    for number in range(10):
        run = soak.encode("encoded", ROWS_KILLED)
        wanted = 2 * number  # of 20 shards, so that all kills come before the end
        ended = run.wait(
            until=lambda run=run, wanted=wanted: (
                len(list(run.output_dir.glob("*.parquet"))) >= wanted and any(run.output_dir.glob(".*.tmp"))
            ),
            timeout=1200,
        )
        assert not ended, run.said[-3000:]
        time.sleep(soak.random.uniform(0, 0.3))
        run.kill()
        killed += set(run.statuses.values()) == {-signal.SIGKILL}
        inside += any(run.output_dir.glob(".*.tmp"))
    last = soak.encode("encoded", ROWS_KILLED)
    last.wait(timeout=1200)
    assert set(last.statuses.values()) == set(whole.statuses.values()) == {0}, last.said[-3000:]
    files = [sorted(run.output_dir.glob("*")) for run in (last, whole)]
    equal = [
        one.name == other.name and one.read_bytes() == other.read_bytes() for one, other in zip(*files, strict=True)
    ]
    ids = [row for path in files[0] for row in pq.read_table(path, columns=["id"])["id"].to_pylist()]
    assert ids == list(range(ROWS_KILLED)), "an id is missing, or there twice"
    return {"kills": killed, "inside a shard": inside, "rows": len(ids), "equal files": f"{sum(equal)} of 20"}


def encode_load(soak: Soak) -> dict[str, Any]:
    """A million sentences: the largest memory of the process in each fifth of them."""
    run = soak.encode("load", ROWS_OF_LOAD)
    peaks = [0.0] * 5
    start = time.monotonic()

    def look() -> bool:
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            pages = int(Path(f"/proc/{run.processes[0]}/statm").read_text().split()[1])
            fifth = min(4, len(list(run.output_dir.glob("*.parquet"))) // 4)
            peaks[fifth] = max(peaks[fifth], pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        time.sleep(0.1)
        return False

    run.wait(until=look, timeout=3000)
    assert set(run.statuses.values()) == {0}, run.said[-3000:]
    seconds = time.monotonic() - start
    return {"rows": ROWS_OF_LOAD, "rows per second": round(ROWS_OF_LOAD / seconds), "MB": list(map(round, peaks))}


def not_better(soak: Soak) -> dict[str, Any]:
    """The exit status of `--require_better True` where the run is worse, with and without accelerate's launcher."""
    pages = soak.folder / "pages"
    pages.mkdir()
    for number in range(400):
        title = soak.random.sample(WORDS, 3)
        texts = [" ".join(soak.random.sample(title, 2) + soak.random.choices(WORDS, k=5)) for _ in range(3)]
        (pages / f"{number:03}.md").write_text(f"# {' '.join(title)}\n\n{'. '.join(texts)}.\n")
    arguments = [
        str(ROOT / "run_arccse.py"), "--model_name_or_path", "encoder", "--train_file", "pages", "--pooling",
        "mean", "--max_steps", "20", "--per_device_train_batch_size", "8", "--learning_rate", "0.3", "--use_cpu",
        "True", "--max_seq_length", "24", "--save_strategy", "no", "--disable_tqdm", "True", "--require_better", "True",
    ]  # fmt: skip
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "configs/accelerate/cpu.yaml")]
    found = {}
    for name, launcher in (("python", []), ("accelerate launch", launch)):
        line = [sys.executable, *launcher, *arguments, "--output_dir", f"worse-{name.split()[0]}"]
        done = subprocess.run(line, cwd=soak.folder, capture_output=True, text=True, timeout=900)
        verdict = next((line for line in done.stdout.splitlines() if line.startswith("VERDICT")), done.stderr[-900:])
        found[name] = {"status": done.returncode, "verdict": verdict}
    return found


def fuzzing(soak: Soak) -> dict[str, Any]:
    """The made-up input of the suite, many times as much of it."""
    report = soak.folder / "fuzzing.jsonl"
    environment = os.environ | {"ARCCSE_FUZZ_TIMES": str(FUZZ_TIMES), "ARCCSE_FUZZ_REPORT": str(report)}
    line = [sys.executable, "-m", "pytest", "-q", "-x", "tests/test_fuzzing.py", "-p", "no:cacheprovider"]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:]
    ends = [json.loads(line) for line in report.read_text().splitlines()]
    return {"cases": sum(sum(v for v in e.values() if isinstance(v, int)) for e in ends), "ends": ends}


def bill_of_materials(soak: Soak) -> dict[str, Any]:
    """Every package of this environment with its version and licence, as CycloneDX has it."""
    program = Path(sys.executable).with_name("cyclonedx-py")
    if not program.exists():
        return {"skipped": "pip install cyclonedx-bom"}
    bill = ROOT / "benchmarks" / "results" / "sbom.json"
    line = [str(program), "environment", sys.executable, "--output-format", "JSON", "--output-file", str(bill)]
    subprocess.run(line, check=True, capture_output=True)
    packages = json.loads(bill.read_text())["components"]
    named = [package for package in packages if package.get("licenses")]
    return {"file": str(bill.relative_to(ROOT)), "packages": len(packages), "with a licence": len(named)}
