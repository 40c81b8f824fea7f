"""Rows from files and by name: codes, densities, and what is refused in words."""

import json

import numpy as np
import pytest
import torch

from gfnem.component import build
from gfnem.energies import BinaryImages, Points, Spins, TableRows, Torus
from gfnem.energies.codes import Grid, from_bits, to_bits
from gfnem.energies.coding import Coding
from gfnem.energies.images import bars_and_stripes
from gfnem.energies.lattices import neighbours, simulate
from gfnem.energies.models import log_sum_on_torus
from gfnem.energies.point_sets import REACH, SETS
from gfnem.energies.space import digits
from gfnem.errors import UserError


def test_gray_codes_of_neighbours_differ_in_one_bit():
    cells = torch.arange(64)
    bits = to_bits(cells, 6)
    assert ((bits[1:] != bits[:-1]).sum(1) == 1).all()
    assert torch.equal(from_bits(bits), cells)


def test_a_grid_decodes_what_it_encodes():
    torch.manual_seed(0)
    grid = Grid(5, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0]))
    points = torch.rand(100, 2) * torch.tensor([2.0, 4.0]) + torch.tensor([-1.0, 0.0])
    again = grid.decode(grid.encode(points))
    assert ((again - points).abs() <= torch.tensor([1 / 32, 2 / 32]) + 1e-6).all()
    outside = grid.encode(torch.tensor([[-9.0, 99.0]]))
    assert torch.equal(grid.cells(outside), torch.tensor([[0, 31]]))
    first = grid.encode(torch.tensor([[0.5, 1.0]]))[0, :2]  # which quarter: right, lower half
    assert torch.equal(first, torch.tensor([1, 0]))


@pytest.mark.parametrize("name", SETS)
def test_densities_are_those_of_the_points(name):
    mixture, low = SETS[name](), torch.full((2,), -REACH).double()
    grid = Grid(3, low, -low)
    table = mixture.table(grid)
    assert table.sum().item() == pytest.approx(1.0, abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    rows = grid.encode(mixture.sample(40_000, generator))
    cells = grid.cells(rows)
    found = torch.zeros(8, 8).double()
    found.index_put_(cells.unbind(1), torch.ones(len(cells)).double(), accumulate=True)
    assert (found / 40_000 - table).abs().sum() < 0.04
    own = mixture.log_probability(grid, rows[:500]).exp()
    assert torch.allclose(own, table[cells[:500].unbind(1)], rtol=1e-6, atol=0)


def test_points_of_a_file_and_missing_coordinates(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y\n0,0\n1,\n2,3\n4,5\n")
    data = Points(str(path), bits=4)
    assert len(data.rows) + len(data.held_out) == 3 and data.left_out == 1
    assert "1 rows with missing entries" in data.summary()
    rows = data.coding.read(path)
    assert (rows[1] < 0).sum() == 4 and data.coding.shown(rows)[1][1] is None
    again = build(json.loads(json.dumps(data.coding.spec())), Coding)
    assert again.shown(rows) == data.coding.shown(rows)


def written(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (Points, "p.csv", "1,2,3\n4,5,6\n", "3 columns, where points in the plane have two"),
        (Points, "p.csv", "1,2\n3,inf\n", "line 2: 'inf' is not a finite number"),
        (Points, "p.csv", "1,2\n3,four\n", "line 2: 'four' is not a finite number"),
        (Points, "p.csv", "1,2\n3\n", "line 2: 1 columns, where others have 2"),
        (Points, "p.txt", "1 2\n1 2\n", "two different numbers at least"),
        (Points, "p.txt", "1 2\n", "two different numbers at least"),
        (Points, "p.txt", "", "the file is empty"),
        (Points, "p.npy", np.array([[1.0, np.inf], [0, 0]]), "row 1 is not finite"),
        (Points, "p.npy", np.zeros((2, 2, 2)), "rows of numbers are wanted"),
        (BinaryImages, "i.npy", np.zeros((3, 4)), "not .images, height, width."),
        (BinaryImages, "i.npy", np.ones((9, 2, 2)), "all 8 rows are the same"),
        (Spins, "s.npy", np.ones((9, 4)), "1 different numbers, where 2 to 32 are wanted"),
        (Spins, "s.csv", "1,-1,x\n1,1,1\n", "'x' is not a finite number"),
        (Spins, "s.txt", "1 -1 1\n", "1 rows without missing entries"),
        (TableRows, "t.csv", "a,b\n1,x\n1,y\n", "column a: every row has the same value"),
        (TableRows, "t.csv", "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(30)),
         "column a: 30 different values, where 20 are the most"),
        (TableRows, "t.csv", "a,a\n1,x\n2,y\n", "all of them different, and not by numbers; here"),
        (TableRows, "t.csv", "0,1\n1,0\n0,0\n", "not by numbers; here it is 0,1"),
        (TableRows, "t.csv", "a,b\n", "no row under the names of the columns"),
        (BinaryImages, "t.csv", "a,b\n", "not an .npy file of numbers .it does not begin as one"),
        (TableRows, "t.csv", "a,b\n1,x\n2\n", "line 3: 1 columns, where others have 2"),
        (TableRows, "t.csv", "a,b\n1,x\n?,y\n", "column a: every row has the same value"),
    ],
)  # fmt: skip
def test_bad_files_are_the_users_mistake(tmp_path, kind, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as caught:
        kind(str(path))
    assert str(path) in str(caught.value)


def test_a_name_that_is_neither_a_set_nor_a_file():
    with pytest.raises(UserError, match="three_moons: neither a file nor the name of a set"):
        Points("three_moons")


def test_values_out_of_range_in_new_data(tmp_path):
    table = written(tmp_path, "t.csv", "a,b\n1,x\n2,y\n1,y\n2,x\n?,x\n")
    data = TableRows(str(table))
    assert data.left_out == 1 and data.coding.values == 2 and data.facts()["counts"] is None
    unequal = TableRows(str(written(tmp_path, "u.csv", "a,b\n1,x\n2,y\n3,y\n2,x\n")))
    assert unequal.coding.values == 3 and unequal.facts()["counts"] == [3, 2]
    new = written(tmp_path, "new.csv", "a,b\n?,x\n3,y\n")
    with pytest.raises(UserError, match="line 3: '3' is no value of a"):
        data.coding.read(new)
    rows = data.coding.read([[None, "x"], ["2", ""]])
    assert rows.tolist() == [[-1, 0], [1, -1]]
    assert data.coding.shown(rows) == [{"a": None, "b": "x"}, {"a": "2", "b": None}]
    spins = written(tmp_path, "s.txt", "1 -1\n-1 1\n1 1\n")
    data = Spins(str(spins))
    with pytest.raises(UserError, match="2 in row 1 is none of -1, 1"):
        data.coding.read(np.array([[2.0, 1.0]]))
    with pytest.raises(UserError, match="3 spins, where the run knows 2"):
        data.coding.read(np.array([[1.0, 1.0, 1.0]]))


def test_images_by_name_and_from_a_file(tmp_path):
    assert len(bars_and_stripes(4)) == 30 and len(bars_and_stripes(3)) == 14
    path = tmp_path / "x.npz"
    images = np.zeros((12, 2, 3))
    images[::2, 0, 0], images[1::2, 1, 2] = 255, 255
    np.savez(path, x_train=images)
    data = BinaryImages(str(path))
    assert data.coding.visible == 6 and set(data.rows.flatten().tolist()) == {0, 1}
    with pytest.raises(UserError, match="images of 3x2, where the run knows 2x3"):
        data.coding.read(np.zeros((1, 3, 2)))
    np.savez(path, y=images)
    with pytest.raises(UserError, match="no array x_train"):
        BinaryImages(str(path))


def test_simulated_spins_have_the_lattices_correlation():
    """The mean product of neighbours is the derivative of the exact log Z."""
    model = Torus(16, coupling=0.15, learned=True)
    model.log_partition().backward()
    exact = model.coupling.grad.item() / (2 * 32)  # 32 edges, each of which counts twice
    spins = 2 * simulate(4, 0.15, 4000, 20).float() - 1
    edges = (spins @ neighbours(4) * spins).sum(1).mean().item() / 64
    assert edges == pytest.approx(exact, abs=0.015)
    # of a Potts model with two values it is the same
    two = 2 * simulate(4, 0.15, 2000, 20, values=2).float() - 1
    assert (two @ neighbours(4) * two).sum(1).mean().item() / 64 == pytest.approx(exact, abs=0.02)


def test_sums_on_a_torus_are_those_of_listing():
    torch.manual_seed(0)
    right, down, field = torch.randn(3, 3, 3).double() / 2
    every = digits(2, 9, torch.device("cpu")).unflatten(1, (3, 3))
    s = 2.0 * every - 1
    value = (2 * right * s * s.roll(-1, 2) + 2 * down * s * s.roll(-1, 1) + field * s).sum((1, 2))
    known = torch.randint(-1, 2, (20, 3, 3))
    known[0] = -1
    agrees = ((known[:, None] < 0) | (known[:, None] == every)).all(3).all(2)
    expected = value.masked_fill(~agrees, -torch.inf).logsumexp(1)
    assert torch.allclose(log_sum_on_torus(right, down, field, known), expected)
    model = Torus(9, coupling=0.2, field=0.1)
    assert torch.allclose(model.log_partition(), model.table().logsumexp(0), atol=1e-4)
    x = known.flatten(1)
    assert torch.allclose(model.log_marginal(x), model.completed(x)[1].logsumexp(1), atol=1e-4)
