from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_ecg.contracts import STANDARD_LEADS, Batch, Keys
from fairseq_ecg.data.augment.pipeline import Pipeline
from fairseq_ecg.data.dataset import ManifestDataset
from fairseq_ecg.data.loader import Loader
from fairseq_ecg.data.pairing import segment_pairs, single
from fairseq_ecg.data.sampler import BatchSampler
from fairseq_ecg.errors import DataError
from tests.data.made_stores import make_manifest, make_store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ManifestDataset:
    folder = tmp_path_factory.mktemp("loader")
    manifest = make_manifest(folder / "m.tsv", make_store(folder / "s", [110] * 13), 50)
    return ManifestDataset(
        manifest,
        leads=STANDARD_LEADS,
        num_samples=40,
        pipeline=Pipeline.parse("random_lead_mask(p=0.5)"),
        seed=1,
    )


def sampler(dataset: ManifestDataset, batch_size: int = 4, pairs: bool = False) -> BatchSampler:
    pairing = segment_pairs if pairs else single
    manifest = dataset.manifest
    return BatchSampler(
        lambda epoch: pairing(manifest, epoch, 1), manifest.num_samples, batch_size=batch_size, seed=1
    )


def loader(dataset: ManifestDataset, batch_size: int = 4, pairs: bool = False, **options: int) -> Loader:
    return Loader(dataset, sampler(dataset, batch_size, pairs), **{"epoch": 1, **options})  # type: ignore[arg-type]


def assert_same(mine: list[Batch], theirs: list[Batch]) -> None:
    assert len(mine) == len(theirs)
    for first, second in zip(mine, theirs, strict=True):
        assert (first.batch_index, first.weight) == (second.batch_index, second.weight)
        np.testing.assert_array_equal(first.keys.index, second.keys.index)
        np.testing.assert_array_equal(first.keys.view, second.keys.view)
        for name in ("source", "scale", "patient", "segment", "lead_mean", "lead_std"):
            assert torch.equal(getattr(first, name), getattr(second, name)), name
        assert torch.equal(first.draws[0], second.draws[0])


@pytest.mark.parametrize("pairs", [False, True])
def test_threads_do_not_change_the_batches(dataset: ManifestDataset, pairs: bool) -> None:
    alone = list(loader(dataset, pairs=pairs))
    assert len(alone) == (4 if pairs else 7)
    for num_workers in (1, 2):
        for buffer_size in (1, 3, 10):
            with loader(dataset, pairs=pairs, num_workers=num_workers, buffer_size=buffer_size) as threaded:
                assert_same(list(threaded), alone)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_together_see_what_one_process_sees(dataset: ManifestDataset, num_workers: int) -> None:
    alone = list(loader(dataset))
    for world_size in (2, 3):
        ranks = [
            list(loader(dataset, rank=rank, world_size=world_size, num_workers=num_workers))
            for rank in range(world_size)
        ]
        assert len({len(part) for part in ranks}) == 1
        dealt = [batch for step in zip(*ranks, strict=True) for batch in step]
        assert_same(dealt[: len(alone)], alone)
        assert [batch.weight for batch in dealt[len(alone) :]] == [0.0] * (len(dealt) - len(alone))


def test_a_resumed_epoch_is_the_tail_of_the_whole_one(dataset: ManifestDataset) -> None:
    alone = list(loader(dataset))
    for first_batch in (0, 2, 6):
        for num_workers in (0, 2):
            assert_same(
                list(loader(dataset, first_batch=first_batch, num_workers=num_workers)), alone[first_batch:]
            )
        ranks = [list(loader(dataset, first_batch=first_batch, rank=r, world_size=2)) for r in range(2)]
        dealt = [batch for step in zip(*ranks, strict=True) for batch in step if batch.weight]
        assert_same(dealt, alone[first_batch:])
    assert list(loader(dataset, first_batch=7)) == []


def test_a_stand_in_has_a_number_of_its_own_no_weight_and_real_rows(dataset: ManifestDataset) -> None:
    last = list(loader(dataset, rank=1, world_size=2))[-1]
    first = next(loader(dataset))
    assert (last.batch_index, last.weight) == (7, 0.0)
    assert torch.equal(last.source, first.source)


def test_the_length_is_known_before_iterating(dataset: ManifestDataset) -> None:
    for world_size in (1, 2, 3):
        for rank in range(world_size):
            one = loader(dataset, rank=rank, world_size=world_size)
            assert len(one) == len(list(one)) == -(-7 // world_size)
            assert one.num_batches == 7


def test_epochs_differ_and_repeat_exactly(dataset: ManifestDataset) -> None:
    first, second = list(loader(dataset)), list(loader(dataset, epoch=2))
    assert_same(list(loader(dataset)), first)
    assert [batch.keys.index.tolist() for batch in first] != [batch.keys.index.tolist() for batch in second]


def test_a_batch_that_is_held_never_changes(dataset: ManifestDataset) -> None:
    for num_workers in (0, 2):
        held, copies = [], []
        for epoch in (1, 2, 3):
            for batch in loader(dataset, epoch=epoch, num_workers=num_workers):
                held.append(batch)
                copies.append(batch.source.clone())
        assert all(torch.equal(batch.source, copy) for batch, copy in zip(held, copies, strict=True))


class Failing:
    """Gathers like the dataset, and fails on one row."""

    def __init__(self, dataset: ManifestDataset, row: int) -> None:
        self.dataset, self.row = dataset, row
        self.num_gathers = 0

    def gather(self, keys: Keys, batch_index: int = 0, weight: float = 1.0) -> Batch:
        self.num_gathers += 1
        if self.row in keys.index:
            raise DataError(f"record {self.dataset.manifest.record_ids[self.row]!r}: shard went away")
        return self.dataset.gather(keys, batch_index, weight)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_worker_s_error_reaches_the_consumer_at_its_batch(
    dataset: ManifestDataset, num_workers: int
) -> None:
    before = threading.active_count()
    whole = list(loader(dataset))
    place = 4
    failing = Failing(dataset, int(whole[place].keys.index[0]))
    one = Loader(failing, sampler(dataset), epoch=1, num_workers=num_workers)
    name = dataset.manifest.record_ids[failing.row]
    assert_same([next(one) for _ in range(place)], whole[:place])
    with pytest.raises(DataError, match=f"record '{name}': shard went away"):
        next(one)
    assert threading.active_count() == before
    assert list(one) == []


def test_a_bad_mat_file_names_its_record_through_the_loader(tmp_path: Path) -> None:
    import scipy.io

    from fairseq_ecg.data.manifest import Manifest

    path = tmp_path / "train.tsv"
    path.write_text(f"{tmp_path}\nsub/recording_0.mat\t50\nsub/other_0.mat\t50\n")
    (tmp_path / "sub").mkdir()
    scipy.io.savemat(tmp_path / "sub" / "other_0.mat", {"feats": np.zeros((12, 50)), "curr_sample_rate": 500})
    legacy = ManifestDataset(
        Manifest.read(path),
        leads=STANDARD_LEADS,
        num_samples=None,
        pipeline=Pipeline(),
        seed=0,
        sampling_rate=500,
    )
    with pytest.raises(DataError, match=r"record 'sub/recording': .*recording_0.mat is missing"):
        list(Loader(legacy, sampler(legacy), epoch=1, num_workers=1))


def test_the_buffer_is_bounded_and_closing_ends_the_threads(dataset: ManifestDataset) -> None:
    before = threading.active_count()
    counting = Failing(dataset, -1)
    one = Loader(counting, sampler(dataset), epoch=1, num_workers=2, buffer_size=3)
    next(one)
    assert threading.active_count() > before
    one.close()
    assert counting.num_gathers <= 1 + 3
    assert threading.active_count() == before
    assert list(one) == []
    one.close()


def test_the_time_the_consumer_waits_is_counted(dataset: ManifestDataset) -> None:
    one = loader(dataset)
    assert one.wait_seconds == 0
    list(one)
    assert one.wait_seconds > 0
