"""Large texts: several processes, Arrow files, the cache. Here "large" is a few kilobytes."""

import multiprocessing
import os
import random
import signal

import numpy as np
import pytest

from gfnem.data import BatchOrder
from gfnem.errors import UserError
from gfnem.parsing.text import corpus as corpus_module
from gfnem.parsing.text import corpus_cache, reading_progress
from gfnem.parsing.text import line_reader as text_lines
from gfnem.parsing.text import sources as text_sources
from gfnem.parsing.text.corpus import read_corpus
from gfnem.parsing.text.data import TextData
from gfnem.parsing.text.reading_progress import ReadingProgress
from gfnem.parsing.text.vocabulary import Vocabulary
from gfnem.parsing.text.workers import can_fork, in_processes


def _text(count: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    words = [f"word{'abcdefghij'[n % 10]}{'klmnopqrst'[n // 10]}" for n in range(100)]
    return "".join(
        " ".join(rng.choices(words, k=rng.randint(1, 9))) + rng.choice([".\n", "!\r\n", "\n"])
        for _ in range(count)
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(_text(2000).encode())
    return path


@pytest.fixture
def large(monkeypatch):
    """What is called large, made small."""
    monkeypatch.setattr(text_sources, "_LARGE_TEXT", 1000)
    monkeypatch.setattr(text_sources, "_LARGE_TREES", 100)
    monkeypatch.setattr(text_lines, "BLOCK", 4096)


def test_a_large_text_reads_as_a_small_one(tmp_path, file, monkeypatch, large):
    cached = read_corpus(file, cache=str(tmp_path / "cache"), processes=2)
    again = read_corpus(file, cache=str(tmp_path / "cache"))
    off = read_corpus(file, cache="off", processes=1)
    monkeypatch.setattr(text_sources, "_LARGE_TEXT", 1 << 30)
    small = read_corpus(file)
    assert small.store.folder is None and cached.store.kept and not off.store.kept
    assert len(cached._chunks) > 5 and len(small._chunks) > 5
    for corpus in (cached, again, off):
        assert corpus.data[:] == small.data[:]
        assert (corpus.read, corpus.skipped, corpus.removed) == (
            *(small.read, small.skipped, small.removed),
        )
        assert corpus.word_counts() == small.word_counts()
        assert corpus.digest() == small.digest()
        assert corpus.lengths.tolist() == [len(tokens) for tokens in small.tokens]
        rows = [1500, 3, 3, 0]
        assert corpus.rows(rows) == [small.tokens[row] for row in rows]
        assert corpus.data.cache_files
    assert not (tmp_path / "cache" / "text.txt").exists()


def test_the_cache_goes_by_content_and_settings(tmp_path, file, monkeypatch, large):
    place = tmp_path / "cache"
    reads = []
    read = corpus_module._read
    monkeypatch.setattr(corpus_module, "_read", lambda *args: reads.append(1) or read(*args))

    def fresh(**settings) -> bool:
        before = len(reads)
        read_corpus(file, cache=str(place), processes=1, **settings)
        return len(reads) > before

    assert fresh() and not fresh()
    assert fresh(lower=False) and fresh(max_length=5) and fresh(limit=100) and not fresh()
    stamp = file.stat()
    file.write_bytes(file.read_bytes().replace(b"worda", b"wordx", 1))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert fresh() and not fresh()
    # a damaged entry is made anew, and nothing unfinished is left
    for path in place.glob("*/sentences.arrow"):
        path.write_bytes(path.read_bytes()[:-100])
    assert fresh() and not fresh()
    for path in place.glob("*/facts.json"):
        path.write_text("{")
    assert fresh() and not fresh()
    assert not list(place.glob(".*"))


def test_where_the_cache_is(tmp_path, file, monkeypatch, large):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    corpus = read_corpus(file, processes=1)
    assert corpus.store.folder.parent == tmp_path / "xdg" / "gfnem" / "corpora"
    assert str(corpus.store.folder) in corpus.summary() and " MB" in corpus.summary()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "nowhere"))  # cannot be written to
    corpus = read_corpus(file, processes=1)
    assert not corpus.store.kept and "kept for the next start" not in corpus.summary()


def test_small_texts_start_no_process_and_write_nothing(tmp_path, file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(corpus_module, "Writer", None)
    pools = []
    monkeypatch.setattr(
        "gfnem.parsing.text.workers.ProcessPoolExecutor", lambda *_: pools.append(1)
    )
    read_corpus(file)
    assert not pools and sorted(p.name for p in tmp_path.iterdir()) == ["text.txt"]


def _read_into(file, place, start, queue):
    start.wait()
    queue.put(read_corpus(file, cache=place, processes=1).digest())


@pytest.mark.slow
def test_two_processes_at_once(tmp_path, file, large):
    context = multiprocessing.get_context("fork")
    start, queue = context.Event(), context.Queue()
    place = str(tmp_path / "cache")
    processes = [
        context.Process(target=_read_into, args=(file, place, start, queue)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    start.set()
    digests = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {read_corpus(file, cache="off", processes=1).digest()}
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_whoever_comes_second_takes_what_is_there(tmp_path, file, large):
    place = tmp_path / "cache"
    first = read_corpus(file, cache=str(place), processes=1)
    writer = corpus_cache.Writer(place, first.store.folder.name, first.data.data.schema)
    store = writer.finish({"read": 0}, first.word_counts())
    assert store.facts == first.store.facts and len(list(place.iterdir())) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_name_the_line_and_leave_nothing(tmp_path, file, large, processes):
    data = file.read_bytes().split(b"\n")
    data[1234] = b"caf\xe9"
    file.write_bytes(b"\n".join(data))
    place = tmp_path / "cache"
    with pytest.raises(UserError, match=r"text.txt, line 1235: not UTF-8 text \(byte 0xe9\)"):
        read_corpus(file, cache=str(place), processes=processes)
    assert not list(place.iterdir())


def test_large_treebanks(tmp_path, large):
    bank = tmp_path / "bank.mrg"
    bank.write_text("(S (NP (DT The) (NN cat)) (, ,) (VBD sat) (. .))\n" * 1200)
    one = read_corpus(bank, cache="off", processes=1)
    two = read_corpus(bank, cache=str(tmp_path / "cache"), processes=2)
    again = read_corpus(bank, cache=str(tmp_path / "cache"))
    assert len(one) == 1200 and one.removed == 2400
    assert one.data[:] == two.data[:] == again.data[:]
    assert two.spans[700] == {(0, 2), (0, 3)} and two.pauses[700] == [2]


@pytest.mark.skipif(not can_fork(), reason="needs fork")
def test_a_worker_that_is_killed_is_one_line():
    def work(piece):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"ended from outside.*--dataset.processes 1"):
        list(in_processes(work, range(5), 2))


def test_pieces_are_taken_as_needed_and_stay_in_order():
    taken = []

    def pieces():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_processes(lambda number: number * number, pieces(), 2)
    assert next(results) == 0 and len(taken) < 20
    assert list(results) == [number * number for number in range(1, 100)]


def test_progress_is_told_on_standard_error(file, capsys, monkeypatch, large):
    monkeypatch.setattr(reading_progress, "_PATIENCE", 0)
    read_corpus(file, cache="off", processes=1)
    output = capsys.readouterr()
    assert output.out == ""
    assert f"gfnem: reading {file}: 0.0 MB of " in output.err and "left" in output.err
    with ReadingProgress("a stream", None, "rows") as progress:
        progress.add(500, 400)
    assert "a stream: 500 rows (400 sentences kept)" in capsys.readouterr().err


def test_training_data_is_as_it_was(tmp_path, file, large):
    """Split, order and vocabulary of a large text are those that a list in memory gives."""
    data = TextData(str(file), valid_sentences=50, seed=3, cache="off", processes=1)
    tokens = read_corpus(file, cache="off", processes=1).tokens
    order = list(range(len(tokens)))
    random.Random(3).shuffle(order)
    held, rows = sorted(order[:50]), sorted(order[50:])
    assert data._valid == [tokens[row] for row in held]
    vocabulary = Vocabulary.build([tokens[row] for row in rows])
    assert data.vocabulary == vocabulary
    batches = BatchOrder([len(tokens[row]) for row in rows], 32, 3)
    assert np.array_equal(batches.sizes, data.sizes())
    for update in (0, 7, 60):
        expected = [vocabulary.encode(tokens[rows[place]]) for place in batches[update]]
        x = data.training_batch(update)
        assert [row[:n] for row, n in zip(x.tokens.tolist(), x.lengths, strict=True)] == expected
    assert "tokens" not in data.train.__dict__  # never all in a list


def test_fingerprints(tmp_path, file, monkeypatch, large):
    data = TextData(str(file), valid_sentences=50, cache="off", processes=1)
    digests = data.fingerprint()
    assert set(digests) == {"vocabulary", "training", "held_out"}
    assert all(int(digest, 16) for digest in digests.values())
    monkeypatch.setattr(text_sources, "_LARGE_TEXT", 1 << 30)
    moved = tmp_path / "moved.txt"
    moved.write_bytes(file.read_bytes())
    assert TextData(str(moved), valid_sentences=50).fingerprint() == digests
    other = TextData(str(moved), valid_sentences=50, seed=1).fingerprint()
    assert other["training"] != digests["training"] and other["held_out"] != digests["held_out"]
    lists = TextData(data.train.rows(data._rows), data._valid, valid_sentences=50)
    assert lists.fingerprint() == digests
    moved.write_bytes(file.read_bytes() + b"one more\n")
    grown = TextData(str(moved), str(file), valid_sentences=50).fingerprint()
    assert grown["training"] != digests["training"]


def test_text_data_takes_datasets():
    from datasets import Dataset

    rows = {"id": list(range(20)), "text": ["the cat sat", "the dog sat down"] * 10}
    data = TextData(Dataset.from_dict(rows), column="text")
    assert data.vocabulary.to_list()[1:3] == ["sat", "the"]
    with pytest.raises(UserError, match="name a column"):
        TextData(Dataset.from_dict(rows))
