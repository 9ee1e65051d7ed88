import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from harness.tracking.process import ProcessIdentity


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def identify(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    return replace(ProcessIdentity.current(), pid=process.pid, started=psutil.Process(process.pid).create_time())


def test_this_process_is_here_and_alive():
    assert ProcessIdentity.current().is_here
    assert ProcessIdentity.current().is_alive


def test_another_process_is_alive_until_it_has_ended(child):
    identity = identify(child)
    assert identity.is_alive
    child.kill()
    child.wait()
    assert not identity.is_alive


def test_a_killed_process_that_nobody_has_waited_for_is_not_alive(child):
    identity = identify(child)
    child.kill()
    psutil.wait_procs([psutil.Process(child.pid)], timeout=0)
    while psutil.pid_exists(child.pid) and psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert not identity.is_alive


def test_a_process_that_was_given_the_id_of_another_is_not_that_one(child):
    assert not replace(identify(child), started=1.0).is_alive


def test_nothing_is_known_of_other_hosts():
    assert not replace(ProcessIdentity.current(), host="elsewhere").is_here
