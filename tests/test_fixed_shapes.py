import torch

from gfnem.fixed_shapes import fixed_shapes, shapes_fixed


def test_a_cpu_chooses_what_it_computes_unless_it_is_told_not_to():
    tensor = torch.zeros(2)
    assert not fixed_shapes(tensor)
    with shapes_fixed():
        assert fixed_shapes(tensor)
        with shapes_fixed(False):
            assert not fixed_shapes(tensor)
        assert fixed_shapes(tensor)
    assert not fixed_shapes(tensor)
