"""Batches of preprocessed images: all of them, in order, in every pass, whatever the network does to them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hf_task2vec.probes import batches
from hf_task2vec.probes.batches import ImageBatches, default_batch_size, lay_out
from tests.support.synthetic import to_tensor

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def pictures(count: int) -> list[Image.Image]:
    """Return pictures whose value is their number."""
    return [Image.new("RGB", (4, 4), (i, i, i)) for i in range(count)]


def numbers(made: ImageBatches) -> list[list[int]]:
    """Return the numbers of the images in each batch, and spoil the batch as a network that works in place would."""
    found = []
    for images, positions in made:
        assert images.is_contiguous(memory_format=torch.channels_last)
        shown = ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        assert (images.dtype, shown) == (torch.float32, positions.tolist())
        found.append(shown)
        images.zero_()
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
@pytest.mark.parametrize(("room", "calls"), [(None, 30), (10, 10), (7, 20)])
def test_every_pass_is_the_same(batch_size: int, room: int | None, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no images kept, all of them, or the first ones as far as there is room."""
    made_by: list[Image.Image] = []

    def transform(image: Image.Image) -> Tensor:
        made_by.append(image)
        return to_tensor(image)

    monkeypatch.setattr(batches, "_KEEP_BYTES", (room or 0) * 3 * 16 * 16 * 4)
    made = ImageBatches(pictures(10), transform, batch_size=batch_size, device=CPU, keep=room is not None)
    for _ in range(3):
        assert numbers(made) == [list(range(10))[i : i + batch_size] for i in range(0, 10, batch_size)]
    assert len(made_by) == calls if room != 7 else 10 < len(made_by) <= 30


def test_a_failing_transform_is_heard_of() -> None:
    def transform(image: Image.Image) -> Tensor:
        raise ValueError(f"cannot read {image.getpixel((0, 0))}")

    made = ImageBatches(pictures(9), transform, batch_size=4, device=CPU)
    with pytest.raises(ValueError, match=r"cannot read \(0, 0, 0\)"):
        numbers(made)


def test_batches_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: tensors of no values, of which the host's pretend to be pinned."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 800)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    assert default_batch_size(CUDA) == 64
    real = torch.zeros(1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            real.to(CUDA)
        except RuntimeError as error:
            pytest.skip(f"torch {torch.__version__} pretends no GPU without its driver: {error}")
        made = ImageBatches(pictures(10), to_tensor, batch_size=4, device=CUDA, keep=True)
        for _ in range(2):
            found = [images for images, _ in made]
            assert [len(images) for images in found] == [4, 4, 2]
            assert {images.device for images in found} == {CUDA}
            assert all(images.is_contiguous(memory_format=torch.channels_last) for images in found)


def test_laying_out_weights_as_images_are_changes_no_value() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.Linear(4, 4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weight = net[0].weight
    lay_out(net, CUDA)
    assert weight is net[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
