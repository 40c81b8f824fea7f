"""A reader that goes away costs the output alone."""

import subprocess
import sys

PROGRAM = """
import sys
from gfnem.running.output import forgiving_output
with forgiving_output():
    for number in range(20_000):
        print("line", number)
print("after", file=sys.stderr)
"""


def test_a_closed_pipe_does_not_end_the_program():
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "line 0\n"
    program.stdout.close()
    said = program.stderr.read()
    program.stderr.close()
    assert program.wait() == 0
    assert said.count("training goes on") == 1 and said.endswith("after\n")
