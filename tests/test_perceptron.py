import pytest
import torch

from gfnem.perceptron import perceptron


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_it_says_nothing_at_first_and_learns(layers):
    torch.manual_seed(0)
    network = perceptron(4, 8, layers, 2)
    x = torch.randn(5, 3, 4)
    assert torch.equal(network(x), torch.zeros(5, 3, 2))
    assert sum(isinstance(part, torch.nn.Linear) for part in network) == layers + 1
    network(x).sum().backward()
    assert network[-1].weight.grad.abs().sum() > 0
