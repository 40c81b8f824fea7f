"""What counts as something too large, and how an interrupted run exits."""

import pytest
import torch

from gfnem.errors import Interrupted, too_large


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OverflowError("int too large to convert to float"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_too_large_is_named_in_one_line(error):
    said = too_large(error)
    assert said and "\n" not in said


def test_a_tensor_that_no_memory_holds_is_too_large():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert too_large(caught.value)


def test_another_error_is_not():
    assert too_large(RuntimeError("shapes (2, 3) and (4,) do not match")) is None


def test_an_interrupted_run_is_a_keyboard_interrupt_with_an_exit_code():
    assert isinstance(Interrupted("go on"), KeyboardInterrupt)
    assert Interrupted("go on").code == 130 and Interrupted("go on", 143).code == 143
