"""The simulation of more threads: how it shares items out, and what it prints."""

import pytest

from universeg_rt.benchmarks.cpu.scaling import fastest, main, simulated

from ...conftest import native_part


@pytest.mark.parametrize("seconds, threads, expected", [
    ([1, 1, 1, 1], 2, 2), ([1, 1, 1], 2, 2), ([3, 1, 1, 1], 2, 3), ([1, 1, 1, 3], 2, 4), ([2, 1], 8, 2), ([], 4, 0)])
def test_items_go_to_the_thread_that_is_free_first(seconds, threads, expected):
    assert simulated(seconds, threads) == expected


def test_of_each_item_the_least_time_counts():
    times = iter([[3.0, 1.0], [2.0, 5.0], [4.0, 4.0]])
    (loop,), = fastest([lambda: [(2, next(times))]], 2)
    assert loop[0] == 2 and list(loop[1]) == [2.0, 1.0]


def test_it_says_that_it_simulates(small_bundle, capsys):
    native_part()
    options = ["--bundle", str(small_bundle), "--support-size", "4", "--batch", "2", "--threads", "2", "3"]
    assert main([*options, "--repeats", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Simulated") and said.count(" threads: ") == 6 and "exact, S = 4" in said
