"""Write a model's outputs for every segment of a subset: ``common_eval.extract``.

Files in ``common_eval.results_path``, for subset S: ``outputs_S.npy`` (N, K) logits, ``targets_S.npy``,
``encoder_out_S.npy`` (N, F, C), ``padding_mask_S.npy`` (N, F) where some frame is padded, ``saliency_S.npy``
(N, layers, F, F), and ``rows_S.tsv``, which says what row n is. Rows follow the manifest; those of a file
that could not be read are NaN. The arrays are ordinary .npy files, written through memory maps, so that
several processes can fill them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from fairseq_ecg.config import CommonEvalConfig
from fairseq_ecg.contracts import Batch, StepOutput
from fairseq_ecg.data.manifest import Manifest
from fairseq_ecg.errors import ConfigError, DataError, nearest
from fairseq_ecg.trainer.distributed import World

EXTRACTABLE = {
    "output": {"logits": "outputs", "target": "targets"},
    "encoder_out": {"encoder_out": "encoder_out", "padding_mask": "padding_mask"},
    "saliency": {"saliency": "saliency"},
}
"""What can be asked for -> names in ``StepOutput.outputs`` -> names of files."""


class Extraction:
    """Receives the batches of one subset and writes their outputs into place."""

    def __init__(self, cfg: CommonEvalConfig, subset: str, manifest: Manifest, world: World) -> None:
        for name in cfg.extract or ():
            if name not in EXTRACTABLE:
                raise ConfigError(f"common_eval.extract={name}: {nearest(name, EXTRACTABLE)}")
        assert cfg.results_path is not None
        self.names = {key: file for name in cfg.extract or () for key, file in EXTRACTABLE[name].items()}
        self.folder, self.subset, self.manifest, self.world = Path(cfg.results_path), subset, manifest, world
        self.arrays: dict[str, NDArray[np.float32]] = {}
        there = [path for path in map(self._path, [*self.names.values(), "rows"]) if path.exists()]
        if there and not cfg.overwrite:
            raise ConfigError(
                f"{there[0]} exists; choose another common_eval.results_path, or replace it with "
                "common_eval.overwrite=true"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"common_eval.results_path={self.folder} cannot be made: {error.strerror}; choose "
                "another folder"
            ) from error

    def __call__(self, batch: Batch, output: StepOutput) -> None:
        """Write one batch's rows; of a stand-in none, but its arrays are opened together with other ranks."""
        for name in self.names:  # one order on every rank: each array's opening ends in a barrier
            value = output.outputs.get(name)
            if value is not None or name == "padding_mask":
                self._write(name, batch, value, output)
            elif name in ("encoder_out", "saliency", "logits"):
                raise ConfigError(f"common_eval.extract: this criterion's output has no {name!r}")

    def close(self) -> None:
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        self.arrays.clear()
        if self.world.is_main:
            self._write_rows()

    def _write(self, name: str, batch: Batch, value: Tensor | None, output: StepOutput) -> None:
        if value is None:  # no row of this batch is padded
            data = np.zeros(output.outputs["encoder_out"].shape[:2], dtype=bool)
        else:
            data = (value.float() if value.is_floating_point() else value).cpu().numpy()
        array = self._open(name, data)
        if data.shape[1:] != array.shape[1:]:
            raise DataError(
                f"{self.manifest.path}: segments of different lengths cannot be written to one array "
                f"({name}: {data.shape[1:]} after {array.shape[1:]}); set task.max_sample_size or "
                f"enable_padding"
            )
        if batch.weight:
            array[batch.keys.index] = data

    def _open(self, name: str, first: NDArray[np.float32]) -> NDArray[np.float32]:
        if name not in self.arrays:
            path = self._path(self.names[name])
            shape = (self.manifest.num_rows, *first.shape[1:])
            if self.world.is_main:
                array = open_memmap(path, mode="w+", dtype=first.dtype, shape=shape)
                if self.manifest.files is not None and first.dtype.kind == "f":
                    array[:] = np.nan  # what stays of a file that could not be read
                array.flush()
            self.world.barrier()
            self.arrays[name] = open_memmap(path, mode="r+")
        return self.arrays[name]

    def _write_rows(self) -> None:
        manifest = self.manifest
        lines = ["row\tidx\trecord_id\tsegment"]
        lines += [
            f"{row}\t{manifest.idx[row]}\t{manifest.record_ids[row]}\t{manifest.segment[row]}"
            for row in range(manifest.num_rows)
        ]
        self._path("rows").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}_{self.subset}.{'tsv' if name == 'rows' else 'npy'}"
