"""What each run gets of the machines at hand."""

import pytest

from bbqrec.errors import InputError
from sweeps.launch import Resources, allot


@pytest.mark.parametrize(
    ("options", "machines", "runs", "expected"),
    [
        ({}, [(2, 0)], 9, (1, 0, 2)),
        ({}, [(2, 0)], 1, (2, 0, 1)),
        ({}, [(16, 1)], 3, (16, 1, 1)),  # the CPUs that go with a GPU
        ({"gpus_per_run": 0.25}, [(16, 1)], 9, (4, 0.25, 4)),
        ({"gpus_per_run": 0.25}, [(2, 1)], 9, (1, 0.25, 2)),
        ({}, [(2, 0), (8, 1), (24, 2)], 9, (8, 1, 3)),  # nothing runs on the machine without one
        ({"gpus_per_run": 2}, [(8, 1), (24, 2)], 9, (24, 2, 1)),
        ({"gpus_per_run": 1}, [(8, 0)], 2, (4, 1, 0)),  # waits for a GPU
        ({"gpus_per_run": 0}, [(16, 1)], 9, (1, 0, 16)),
        ({}, [(1, 0), (1, 0)], 1, (1, 0, 1 + 1)),  # no node has both CPUs
        ({"cpus_per_run": 3}, [(4, 0), (8, 0)], 9, (3, 0, 3)),
        ({"cpus_per_run": 0.5, "max_concurrent": 3}, [(2, 0)], 9, (0.5, 0, 3)),
        ({"cpus_per_run": 3}, [(2, 0)], 9, (3, 0, 0)),
        ({"workers_per_run": 2}, [(2, 0)], 9, (1, 0, 1)),
        ({"workers_per_run": 2}, [(16, 4)], 2, (4, 1, 2)),
        ({"workers_per_run": 2}, [(1, 0), (1, 0)], 9, (1, 0, 1)),  # one on each node
        ({"workers_per_run": 4, "gpus_per_run": 2, "cpus_per_run": 4}, [(16, 3)], 9, (1, 0.5, 1)),
        ({"workers_per_run": 3, "cpus_per_run": 1.5, "max_concurrent": 1}, [(3, 0)], 9, (0.5, 0, 1)),
        ({"workers_per_run": 3}, [(2, 0)], 9, (1, 0, 0)),
        ({}, [], 9, (1, 0, 0)),  # a head without CPUs whose workers are still to come
    ],
)
def test_runs_get_whole_machines_shared_out(options, machines, runs, expected):
    assert allot(Resources(**options), machines, runs) == expected


@pytest.mark.parametrize(
    ("options", "machines", "coming", "expected"),
    [
        ({}, [], [(8, 1)], (8, 1, 0)),  # a head without CPUs: the workers will have GPUs
        ({"gpus_per_run": 0.5}, [], [(8, 1)], (4, 0.5, 0)),
        ({}, [(8, 1)], [(8, 1)], (8, 1, 1)),  # as when the first one has come
        ({}, [(4, 0)], [(8, 1)], (8, 1, 0)),
        ({"gpus_per_run": 0}, [(4, 0)], [(8, 1)], (1, 0, 4)),
        ({}, [], [(4, 0)], (1, 0, 0)),
    ],
)
def test_what_is_to_come_counts_for_the_size_of_runs_but_not_for_their_number(options, machines, coming, expected):
    assert allot(Resources(**options), machines, 9, coming) == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [("gpus_per_run", -1), ("cpus_per_run", 0), ("max_concurrent", 0), ("max_concurrent", -3), ("workers_per_run", 0)],
)
def test_impossible_resources_are_named(option, value):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} {value} is too small"):
        Resources(**{option: value})


@pytest.mark.parametrize(
    ("gpus", "workers", "refused"), [(1.5, 1, True), (3, 2, True), (0.75, 1, False), (4, 2, False), (0.5, 2, False)]
)
def test_more_than_one_gpu_is_a_whole_number_for_each_worker(gpus, workers, refused):
    if refused:
        with pytest.raises(InputError, match=f"--gpus-per-run {gpus} of {workers} workers is 1.5 GPUs for each"):
            Resources(gpus_per_run=gpus, workers_per_run=workers)
    else:
        each = Resources(gpus_per_run=gpus, workers_per_run=workers)
        assert allot(each, [(8, 4)], 9)[1] == gpus / workers


def test_no_number_of_cpus():
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"--cpus-per-run {value} is not finite"):
            Resources(cpus_per_run=value)
