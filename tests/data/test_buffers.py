from __future__ import annotations

import threading

import torch

from fairseq_ecg.data.buffers import BufferPool


def test_a_buffer_is_used_again_once_nobody_holds_it() -> None:
    pool = BufferPool()
    first = pool.take((4, 100), torch.int16)
    place = first.data_ptr()
    del first
    assert pool.take((4, 100), torch.int16).data_ptr() == place
    assert pool.take((2, 75), torch.float32).data_ptr() == place  # 600 of 800 bytes
    assert pool.take((1, 10), torch.float32).data_ptr() != place  # far too large for this one


def test_what_is_held_in_any_form_never_changes() -> None:
    pool = BufferPool()
    held = [
        pool.take((10,), torch.float32).fill_(1),
        pool.take((10,), torch.float32).fill_(2)[3:],
        pool.take((10,), torch.float32).fill_(3).numpy(),
        pool.take((10,), torch.float32).fill_(4).numpy()[::2],
        pool.take((10,), torch.float32).fill_(5).view(torch.int32),
    ]
    for _ in range(20):
        pool.take((10,), torch.float32).fill_(-7)
    assert [float(part[0]) for part in held[:4]] == [1, 2, 3, 4]
    assert float(held[4].view(torch.float32)[0]) == 5  # type: ignore[union-attr]


def test_a_full_pool_gives_up_what_is_no_longer_asked_for() -> None:
    pool = BufferPool(max_buffers=2)
    held = [pool.take((100,), torch.float32) for _ in range(2)]
    assert pool.take((100,), torch.float32).shape == (100,)  # beyond the pool
    held.pop()
    small = pool.take((1,), torch.float32)
    place = small.data_ptr()
    del small
    assert pool.take((1,), torch.float32).data_ptr() == place
    assert len(pool._buffers) == 2


def test_threads_never_share_a_buffer() -> None:
    pool = BufferPool()
    failures: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            mine = pool.take((500,), torch.int32).fill_(number)
            if int(mine.sum()) != 500 * number:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
