"""Processes that crash, hang, fail and go on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from data_prep import workers


def square(number):
    return number**2


def misbehave(how):
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        workers.set_time_limit(1)
        while True:
            pass
    if how == "slow but alive":
        for _ in range(4):
            workers.set_time_limit(1)
            time.sleep(0.4)
        workers.set_time_limit(None)
    if how == "stop":
        raise workers.JobError("the disk is full")
    if how == "bug":
        raise ZeroDivisionError("oops")
    return how


def pid(_):
    time.sleep(0.2)
    return os.getpid()


def threads(_):
    return os.environ["OPENBLAS_NUM_THREADS"]


def test_every_job_runs_once_in_few_processes():
    with workers.Workers(2) as pool:
        assert dict(pool.run([(square, number) for number in range(50)])) == {n: n**2 for n in range(50)}
        pids = set(dict(pool.run([(pid, None)] * 6)).values())
        assert len(pids) == 2 and os.getpid() not in pids
        assert dict(pool.run([(threads, None)])) == {0: "1"}
        assert not list(pool.run([]))
    for each in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(each, 0)


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs SIGALRM")
def test_a_crash_or_hang_ends_only_its_own_job():
    jobs = ["fine", "crash", "slow but alive", "hang", "crash", "fine"]
    with workers.Workers(2) as pool:
        results = dict(pool.run([(misbehave, how) for how in jobs]))
    assert [results[index] for index in (0, 2, 5)] == ["fine", "slow but alive", "fine"]
    assert results[1] == results[4] == workers.Crash(signal.SIGSEGV)
    assert str(results[1]) == "signal 11" and str(results[3]) == "no progress for minutes"


@pytest.mark.parametrize("how,message", [("stop", "^the disk is full$"), ("bug", "this is a bug:(.|\n)*oops")])
def test_an_error_stops_the_run(how, message):
    with workers.Workers(2) as pool, pytest.raises(workers.JobError, match=message):
        list(pool.run([(misbehave, "fine"), (misbehave, how), (misbehave, "fine")]))


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks into /proc")
def test_workers_exit_when_their_parent_is_killed():
    code = """
from time import sleep
from data_prep import workers
if __name__ == "__main__":
    with workers.Workers(2) as pool:
        list(pool.run([(sleep, 1000)] * 2))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while len(group_members(parent.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(group_members(parent.pid)) >= 3
        parent.kill()
        parent.wait()
        while group_members(parent.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not group_members(parent.pid)
    finally:
        if group_members(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)


def group_members(group):
    """Processes of a group that are not zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, _, process_group = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(process_group) == group and state != "Z":
            found.append(int(name))
    return found
