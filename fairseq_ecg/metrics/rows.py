"""What the registered metrics share: logits and targets kept row by row until the end of a validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_ecg.errors import DataError
from fairseq_ecg.registry import NoConfig


def logits_and_target(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The two tensors every classification metric reads, float32 and of one shape.

    Shape:
        outputs["logits"], outputs["target"]: (B, K); NaN in the target marks an unlabelled pair.

    Raises:
        DataError: a tensor is missing, or the shapes differ.
    """
    if missing := [name for name in ("logits", "target") if name not in outputs]:
        raise DataError(f"the criterion's outputs lack {missing}, which classification metrics read")
    logits, target = outputs["logits"].detach().float(), outputs["target"].detach().float()
    if logits.ndim != 2 or logits.shape != target.shape:
        raise DataError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (records, classes)"
        )
    return logits, target


class RowMetric:
    """Base of metrics that rank all rows at once. Rows stay on their device until the state is asked for.

    Shape:
        state: logits and target, (N, K), float32.
    """

    def __init__(self, cfg: NoConfig) -> None:
        self.cfg = cfg
        self._logits: list[Tensor] = []
        self._target: list[Tensor] = []

    def check_labels(self, codes: Sequence[Collection[str]]) -> None:
        """Any set of labels can be ranked."""

    def update(self, outputs: Mapping[str, Tensor]) -> None:
        logits, target = logits_and_target(outputs)
        self._logits.append(logits)
        self._target.append(target)

    def state(self) -> dict[str, Tensor]:
        if not self._logits:
            return {"logits": torch.empty(0, 0), "target": torch.empty(0, 0)}
        return {"logits": torch.cat(self._logits).cpu(), "target": torch.cat(self._target).cpu()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._logits, self._target = [state["logits"]], [state["target"]]

    def reset(self) -> None:
        self._logits, self._target = [], []

    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and targets of everything seen so far.

        Raises:
            DataError: a logit is NaN.
        """
        state = self.state()
        logits = state["logits"].numpy()
        if bad := int(np.isnan(logits).any(axis=-1).sum()):
            raise DataError(f"{bad} of {len(logits)} records have NaN logits; their rank is undefined")
        return logits, state["target"].numpy()
