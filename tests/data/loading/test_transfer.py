"""Copies to and from a device, and reading ahead."""

from __future__ import annotations

import threading

import pytest
import torch

from mlfix_train.data.loading.transfer import read_ahead, to_device, to_host


def test_items_are_read_in_order_one_ahead() -> None:
    read: list[int] = []
    second = threading.Event()

    def load(item: int) -> int:
        read.append(item)
        if item == 1:
            second.set()
        return 10 * item

    found = read_ahead(load, range(3), 1)
    assert next(found) == 0
    assert second.wait(5), "the second item is read while the first one is used"
    assert list(found) == [10, 20] and read == [0, 1, 2]
    assert list(read_ahead(load, [])) == []
    assert list(read_ahead(load, range(20), 3)) == list(range(0, 200, 10))


def test_errors_of_reading_arrive() -> None:
    def load(item: int) -> int:
        raise OSError(f"item {item}")

    with pytest.raises(OSError, match="item 4"):
        list(read_ahead(load, [4]))


def test_copies_arrive() -> None:
    values = torch.arange(5)
    assert to_device(values, "cpu").equal(values)
    assert to_host(values)().equal(values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_arrive_on_a_gpu() -> None:
    values = torch.randn(1000, 1000)
    there = to_device(values, "cuda")
    assert there.is_cuda
    assert to_host(there * 2)().equal(values * 2)
