"""The file of what was measured: kept, shared by processes, damaged, forgotten."""

import multiprocessing
from pathlib import Path

import pytest

from dllm_plugins.routing.kept import Book
from dllm_plugins.routing.kept import book
from dllm_plugins.routing.kept import routes_file


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answers(kept: Book) -> int:
    """How many the file and this process know of."""
    return sum(known.pieces for known in kept.look().situations)


def test_it_is_kept_and_forgotten(folder: Path) -> None:
    """At once the first time, later after a pause or at the end; another process finds it."""
    clock = Clock()
    first = Book(folder / "routes.json", clock)
    first.learn("m", ("s", "wide"), "ar", 10, 1.0)
    first.learn("m", ("s", "wide"), "ar", 10, 1.0)
    assert answers(Book(folder / "routes.json")) == 1
    clock.now = 10.0
    first.learn("m", ("s", "wide"), "ar", 10, 1.0)
    assert answers(Book(folder / "routes.json")) == 3
    first.learn("m", ("s", "wide"), "ar", 10, 1.0)
    first.close()
    assert answers(Book(folder / "routes.json")) == answers(first) == 4
    assert first.forget()
    assert not first.forget()
    assert answers(first) == 0


def test_two_add_up(folder: Path) -> None:
    """What one has not seen of the other is not lost when it writes."""
    one, other = Book(folder / "routes.json"), Book(folder / "routes.json")
    assert answers(one) == answers(other) == 0
    one.learn("m", ("s", "wide"), "ar", 10, 1.0)
    other.learn("m", ("s", "wide"), "speculative", 20, 1.0)
    assert answers(other) == 2
    known = other.look().models["m"]
    assert {*known.situations["s"].arms} == {*known.wider["wide"].arms} == {"ar", "speculative"}


def _learn(place: Path, count: int) -> None:
    kept = Book(place)
    for _ in range(count):
        kept.choose("m", ("s", "wide"), lambda known, wider: known.choose(("ar", "speculative"), wider))
        kept.learn("m", ("s", "wide"), "ar", 10, 1.0)
    kept.close()


def test_processes_at_once(folder: Path) -> None:
    """Every answer of every process is in the file."""
    place = folder / "routes.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_learn, args=(place, 25)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert answers(Book(place)) == 75


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 99}', '{"models": {"m": {"situations": {"s": {"seconds": -1}}}}}']
)
def test_a_damaged_file_is_begun_anew_and_said_so(folder: Path, text: str) -> None:
    """Once."""
    place = folder / "routes.json"
    place.write_text(text, encoding="utf-8")
    kept = Book(place)
    with pytest.warns(UserWarning, match="measured anew"):
        kept.learn("m", ("s", "wide"), "ar", 10, 1.0)
    assert answers(Book(place)) == 1


def test_a_file_of_an_older_version_is_replaced(folder: Path) -> None:
    """Without a word: nothing is wrong with it."""
    place = folder / "routes.json"
    place.write_text('{"version": 1, "models": {"m": {"s": {}}}}', encoding="utf-8")
    Book(place).learn("m", ("s", "wide"), "ar", 10, 1.0)
    assert answers(Book(place)) == 1


def test_a_place_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart from what else is in the cache folder."""
    monkeypatch.setenv("DLLM_ROUTES", str(folder / "mine.json"))
    assert routes_file() == folder / "mine.json"


def test_a_folder_that_cannot_be_written_is_done_without(folder: Path) -> None:
    """Choices go on, from memory."""
    (folder / "file").write_text("", encoding="utf-8")
    kept = Book(folder / "file" / "routes.json")
    kept.learn("m", ("s", "wide"), "ar", 10, 1.0)
    assert answers(kept) == 1


def test_one_in_a_process() -> None:
    """That of the cache folder."""
    assert book() is book()
    assert book().place == routes_file()
