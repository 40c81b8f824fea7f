"""The benchmarks' table: a row for each measurement, which says where it comes from."""

import csv
import importlib.util
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture
def record(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("record", FOLDER / "record.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "record", module)  # its dataclass looks itself up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TABLE", tmp_path / "results" / "speed.csv")
    return module


def test_rows_are_appended_under_one_header(record, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bench_inside.py", "--model", "two words"])
    record.record("inside", 0.123456)
    record.record("outside", 20.0)
    with open(record.TABLE, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["what"], row["cpu_seconds"]) for row in rows] == [
        ("inside", "0.1235"),
        ("outside", "20"),
    ]
    assert rows[0]["command"] == (
        "python experiments/benchmarks/bench_inside.py --model 'two words'"
    )
    assert all(rows[0][name] for name in record.COLUMNS)


def test_cpu_time_does_not_count_waiting(record):
    import time

    seconds = record.median_seconds(lambda: time.sleep(0.02), 3)
    assert seconds.wall >= 0.02 and seconds.cpu < 0.01
    waits, works = record.medians_in_turn([lambda: time.sleep(0.02), lambda: sum(range(10**6))], 3)
    assert waits.wall >= 0.02 and waits.cpu < 0.01 and works.cpu > 0.005
    seconds = record.program_seconds([sys.executable, "-S", "-c", "sum(range(10**6))"])
    assert seconds.cpu > 0.005


@pytest.mark.parametrize("path", sorted(FOLDER.glob("bench_*.py")), ids=lambda path: path.stem)
def test_every_benchmark_records_its_measurements(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^from record import .*\brecord\b", text, re.MULTILINE)
    assert re.search(r"^ +record\(", text, re.MULTILINE)
