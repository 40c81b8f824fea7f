"""`gfnem parse` as a filter: what it reads, when it answers, what it prints."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call, printed, trained
from nltk import Tree

ROOT = Path(__file__).parents[2]
ALONE = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}


def program(*arguments, **options):
    command = [sys.executable, "-m", "gfnem", *map(str, arguments)]
    return subprocess.run(command, env=ALONE, capture_output=True, timeout=120, **options)


def stdin(monkeypatch, text: str):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.slow
def test_nothing_that_training_needs_is_imported(tmp_path):
    script = (
        "import sys; from gfnem.cli import main; code = main(sys.argv[1:]); "
        # the reward that a run on the user's own text has
        "import gfnem.parsing.rewards.substrings; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr); "
        "sys.exit(code)"
    )
    (tmp_path / "text.txt").write_text("the dog sees a cat\n")
    command = [sys.executable, "-c", script, "parse", str(trained()), str(tmp_path / "text.txt")]
    done = subprocess.run(command, env=ALONE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and Tree.fromstring(done.stdout)
    loaded = set(done.stderr.split())
    assert "torch" in loaded
    assert not loaded & {
        "pytorch_lightning",
        "datasets",
        "pandas",
        "scipy",
        "sklearn",
        "matplotlib",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [(), ("--decode", "sample", "--samples", "3", "--format", "json"), ("--format", "svg")],
    ids=["best", "drawn", "svg"],
)
def test_answers_do_not_depend_on_the_number_of_processes(tmp_path, flags):
    words = "the dog sees a (cat) with the park".split()
    lines = [" ".join((words * 6)[number % 5 : 9 + 7 * number % 30]) for number in range(300)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "gfnem", "parse", trained(), tmp_path / "text.txt", *flags]
    found = [
        subprocess.run(
            command, env={**ALONE, "OMP_NUM_THREADS": threads}, capture_output=True, timeout=120
        )
        for threads in ("1", "3")
    ]
    assert found[0].stdout == found[1].stdout and found[0].returncode == 0
    assert found[0].stdout.count(b"dog") > 200


@pytest.mark.slow
def test_order_is_kept_whatever_the_lengths(capsys, tmp_path):
    words = "the dog sees a cat with the park".split()
    lines = [" ".join((words * 6)[: 2 + 7 * number % 40]) for number in range(600)]
    lines[100] = lines[599] = ""
    file = tmp_path / "text.txt"
    file.write_text("\n".join(lines) + "\n")
    out = printed(capsys, "parse", trained(), file).split("\n")[:-1]
    assert [" ".join(Tree.fromstring(line).leaves()) if line else "" for line in out] == lines


@pytest.mark.slow
def test_a_pipe_is_answered_before_it_ends():
    command = [sys.executable, "-m", "gfnem", "parse", str(trained())]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=ALONE, **pipe) as process:
        for line in (b"the dog sleeps\n", b"a cat\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert Tree.fromstring(process.stdout.readline().decode()).leaves() == (
                line.decode().split()
            )
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_json_can_be_laid_over_the_text(capsys, tmp_path):
    file = tmp_path / "text.txt"
    text = '  The dog, "they" say: sees (a) cat!'
    file.write_text(f"{text}\ndog\n\n{'dog ' * 12}\n")
    code = call("parse", trained(), file, "--format=json", "--max-length=10")
    output = capsys.readouterr()
    records = [json.loads(line) for line in output.out.splitlines()]
    assert code == 0 and [record["line"] for record in records] == [1, 2, 3, 4]
    first = records[0]
    assert first["text"] == text
    assert [text[start:end] for start, end in first["offsets"]] == first["tokens"]
    assert [record.get("why") for record in records[1:]] == [
        "not derivable: the model was trained on sentences of 2 words or more",
        "blank",
        "12 tokens, more than --max-length 10",
    ]
    assert all(record["tree"] is None for record in records[1:])
    errors = output.err.splitlines()
    assert (
        len(errors) == 2 and "line 2: not derivable" in errors[0] and "line 4: 12 tok" in errors[1]
    )


def test_the_sentence_heads_its_picture(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(f"The dog sleeps.\n\n{'dog ' * 12}\n")
    assert call("parse", trained(), file, "--format=svg", "--max-length=10") == 0
    page = capsys.readouterr().out
    assert page.count("<svg") == 1 and page.count("<h2>") == 2
    assert "<h2>line 1: The dog sleeps.</h2>" in page
    assert "line 3: dog dog" in page and "more than --max-length 10: not parsed" in page


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--decode=sample"], ["--decode=mbr", "--samples=8"]])
def test_what_is_drawn_depends_neither_on_the_format_nor_on_the_terminal(capsys, tmp_path, flags):
    lines = ["the dog sees a cat with the park", "a cat sleeps", "the park sees the dog"] * 3
    file = tmp_path / "text.txt"
    file.write_text("\n".join(lines) + "\n")
    trees = printed(capsys, "parse", trained(), file, *flags).splitlines()
    records = printed(capsys, "parse", trained(), file, *flags, "--format=json").splitlines()
    assert [json.loads(record)["tree"] for record in records] == trees
    text = file.read_text()
    one, other = (program("parse", trained(), *flags, input=text.encode()) for _ in range(2))
    assert one.returncode == 0 and one.stdout == other.stdout


@pytest.mark.slow
def test_output_is_utf_8_whatever_the_locale():
    environment = {"env": {**ALONE, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}}
    command = [sys.executable, "-m", "gfnem", "parse", str(trained())]
    sentence = "naïve café 犬".encode()
    done = subprocess.run(command, input=sentence, capture_output=True, timeout=120, **environment)
    assert done.returncode == 0, done.stderr
    assert Tree.fromstring(done.stdout.decode()).leaves() == sentence.decode().split()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("verb", ["parse", "generate"])
def test_a_full_disk_is_one_line(verb, unbuffered):
    command = [sys.executable, "-m", "gfnem", verb, str(trained())]
    environment = {**ALONE, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, env=environment, input=b"a dog\n", stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr.decode() == "gfnem: error: cannot write (No space left on device)\n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough():
    script = f"{sys.executable} -m gfnem generate {trained()} -n 3000 | head -1"
    done = subprocess.run(script, shell=True, env=ALONE, capture_output=True, timeout=120)
    assert done.stderr == b"" and done.stdout.count(b"\n") == 1
