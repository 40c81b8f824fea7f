"""The first signal asks training to stop, the second one ends it."""

import os
import signal
import threading

import pytest

from gfnem.running.signals import heeding_signals


class Module:
    """Counts how often it is asked."""

    asked = 0

    def stop_soon(self):
        self.asked += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_second_interrupts(number):
    module, before = Module(), signal.getsignal(number)
    with heeding_signals(module) as heard:
        os.kill(os.getpid(), number)
        assert module.asked == 1 and heard == [number]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            threading.Event().wait(1)
    assert signal.getsignal(number) is before


def test_another_thread_is_left_alone():
    before, found = signal.getsignal(signal.SIGTERM), []

    def work():
        with heeding_signals(Module()) as heard:
            found.append((heard, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], before)]
