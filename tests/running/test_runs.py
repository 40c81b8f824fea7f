"""What a path to a run means, and what is no run."""

import pytest
import torch

from gfnem.errors import UserError
from gfnem.running.runs import BEST, CHECKPOINT, checkpoint_path, load_run, read_config


def test_a_folder_means_its_best_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"no last\.ckpt in this folder"):
        checkpoint_path(tmp_path)
    for name in (CHECKPOINT, BEST):
        (tmp_path / name).touch()
        assert checkpoint_path(tmp_path) == tmp_path / name
    assert checkpoint_path(tmp_path / CHECKPOINT) == tmp_path / CHECKPOINT


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such run folder or checkpoint"):
        checkpoint_path(tmp_path / "nowhere")


def test_the_settings_lie_beside_the_checkpoint(tmp_path):
    (tmp_path / CHECKPOINT).touch()
    (tmp_path / "config.yaml").write_text("seed: 5\n")
    assert read_config(tmp_path) == read_config(tmp_path / CHECKPOINT) == {"seed": 5}


@pytest.mark.parametrize("content", [{"weights": torch.zeros(2)}, [1, 2], {"hyper_parameters": {}}])
def test_another_torch_file_is_no_run(tmp_path, content):
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match=CHECKPOINT):
        load_run(tmp_path)


def test_a_truncated_checkpoint_is_no_run(tmp_path):
    torch.save({"hyper_parameters": {}, "state_dict": {}}, tmp_path / CHECKPOINT)
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=CHECKPOINT):
        load_run(tmp_path)
