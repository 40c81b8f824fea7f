"""The run folder: one process at a time, and nothing left of a run that never began."""

import pytest

from gfnem.errors import UserError
from gfnem.running.run_folder import RunFolder, _csv, held


def test_a_folder_that_is_held_is_refused(tmp_path):
    # a lock belongs to the open file: a second one is refused in the same process too
    with held(tmp_path / "run", fresh=True):
        with pytest.raises(UserError, match="another process is training in this folder"):
            with held(tmp_path / "run", fresh=False):
                pass
    with held(tmp_path / "run", fresh=False):
        pass


def test_a_new_folder_of_a_run_that_fails_is_taken_away(tmp_path):
    with pytest.raises(UserError, match="bad data"), held(tmp_path / "run", fresh=True):
        raise UserError("bad data")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".last.ckpt.tmp").touch()
    with pytest.raises(UserError, match="bad data"), held(tmp_path / "run", fresh=False):
        raise UserError("bad data")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_fresh_folder_must_not_be_there(tmp_path):
    with pytest.raises(UserError, match="cannot make this folder"), held(tmp_path, fresh=True):
        pass


def test_patience_counts_validations_without_a_lower_nll(tmp_path):
    record = RunFolder(tmp_path, patience=2)
    improved = [record._judge(update, nll) for update, nll in enumerate((3.0, 2.0, None, 2.5))]
    assert improved == [True, True, False, False] and not record.out_of_patience
    again = RunFolder(tmp_path, patience=2)
    again.load_state_dict(record.state_dict())
    assert again._judge(4, 2.0) and again.out_of_patience, "no lower is no better, but later"
    assert again.best == {"update": 4, "nll": 2.0}


def test_a_column_that_comes_later_is_empty_before():
    rows = [{"update": 1, "loss": 0.5}, {"update": 2, "val_nll": 3.0}]
    assert _csv(rows).splitlines() == ["update,loss,val_nll", "1,0.5,", "2,,3.0"]
