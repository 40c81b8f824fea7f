"""Files of tensors: read as they were written, or refused."""

import pickle

import pytest
import torch

from gfnem.running.torch_files import load_plain


@pytest.mark.parametrize("mmap", [False, True])
def test_tensors_come_back(tmp_path, mmap):
    file = tmp_path / "a.pt"
    torch.save({"weight": torch.arange(5.0), "name": "x"}, file)
    content = load_plain(file, mmap)
    assert content["name"] == "x" and content["weight"].tolist() == [0, 1, 2, 3, 4]


def test_a_flipped_bit_is_noticed(tmp_path):
    file = tmp_path / "a.pt"
    torch.save({"weight": torch.full((1000,), 7.0)}, file)
    content = bytearray(file.read_bytes())
    place = content.index(b"\x00\x00\xe0\x40" * 100) + 50  # 7.0 in little-endian float32
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(Exception, match=r"checksum|CRC"):
        load_plain(file)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code in the file ran",))


def test_code_in_a_file_does_not_run(tmp_path):
    file = tmp_path / "a.pt"
    torch.save({"weight": Harmful()}, file)
    with pytest.raises(pickle.UnpicklingError):
        load_plain(file)
