"""Manifests of fairseq-signals: one .mat file per segment."""

import numpy as np
from scipy.io import savemat

from fairseq_ecg.contracts import STANDARD_LEADS
from fairseq_ecg.infer.embed import embed
from fairseq_ecg.infer.inputs import FileOptions, find_inputs
from fairseq_ecg.infer.load import Encoder
from tests.frozen import CONTRACT, NUM_SAMPLES, RATE, make_model


def test_segments_of_a_legacy_record_are_averaged(tmp_path):
    signal = np.random.default_rng(0).normal(size=(12, 2 * NUM_SAMPLES)).astype(np.float32)
    for segment in range(2):
        part = signal[:, segment * NUM_SAMPLES : (segment + 1) * NUM_SAMPLES]
        savemat(tmp_path / f"A1_{segment}.mat", {"feats": part, "curr_sample_rate": RATE})
    lines = [str(tmp_path), f"A1_0.mat\t{NUM_SAMPLES}", f"A1_1.mat\t{NUM_SAMPLES}"]
    (tmp_path / "test.tsv").write_text("\n".join(lines) + "\n")
    encoder = Encoder(model=make_model(), contract=CONTRACT, name="tiny")
    embeddings = embed(encoder, find_inputs(tmp_path / "test.tsv", FileOptions()))
    assert len(embeddings) == 1
    np.testing.assert_allclose(embeddings.embedding, encoder.embed(signal, RATE, STANDARD_LEADS), atol=1e-6)
