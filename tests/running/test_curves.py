"""Curves show the figures that a run has."""

from matplotlib.figure import Figure

from gfnem.running.curves import draw_curves


def drawn(monkeypatch, rows, path):
    """The panels of the picture: title, scale and lines of each."""
    figures, saved = [], Figure.savefig

    def save(figure, *arguments, **settings):
        figures.append(figure)
        saved(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", save)
    draw_curves(rows, path)
    return [(axes.get_title(), axes.get_yscale(), axes.lines) for f in figures for axes in f.axes]


def test_a_panel_for_each_kind_of_figure(tmp_path, monkeypatch):
    rows = [
        {"update": 10, "val_nll": 3.0, "e_loss": 2.0, "threshold": 5.0},
        {"update": 20, "e_loss": 1.0, "threshold": 4.0},
        {"update": 30, "val_nll": 2.0, "e_loss": 0.5, "threshold": 3.0},
    ]
    panels = drawn(monkeypatch, rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert [(scale, len(lines)) for _, scale, lines in panels] == [("linear", 1), ("log", 2)]
    # an interval that was not validated leaves a gap, not a zero
    assert panels[0][2][0].get_xydata().tolist() == [[10, 3], [30, 2]]


def test_a_loss_that_is_not_positive_has_a_linear_scale(tmp_path, monkeypatch):
    rows = [{"update": 1, "e_loss": -3.0}, {"update": 2, "e_loss": 2.0}]
    ((_, scale, _),) = drawn(monkeypatch, rows, tmp_path / "curves.png")
    assert scale == "linear"


def test_no_figures_no_picture(tmp_path):
    draw_curves([{"update": 1, "m_updates": 1}], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
