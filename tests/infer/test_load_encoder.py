import logging

import numpy as np
import pytest
import torch

import fairseq_ecg
from fairseq_ecg.contracts import STANDARD_LEADS, InputContract
from fairseq_ecg.errors import CheckpointError, ConfigError, DataError
from fairseq_ecg.infer.load import Encoder, create_model, load_encoder, pick_device
from fairseq_ecg.nn.pooling import masked_mean
from tests.frozen import CONTRACT, NUM_SAMPLES, RATE, make_model, save_checkpoint


def signal(num_records=2, num_samples=2 * NUM_SAMPLES, seed=0):
    values = np.random.default_rng(seed).normal(size=(num_records, 12, num_samples))
    return values.astype(np.float32)


@pytest.fixture
def encoder():
    return Encoder(model=make_model(), contract=CONTRACT, name="tiny")


def test_an_embedding_is_the_mean_over_segments_of_the_mean_over_frames(encoder):
    source = signal()
    with torch.no_grad():
        expected = [
            np.mean(
                [
                    encoder.model.encode(torch.from_numpy(record[None, :, start : start + NUM_SAMPLES]))
                    .frames.mean(dim=1)[0]
                    .numpy()
                    for start in (0, NUM_SAMPLES)
                ],
                axis=0,
            )
            for record in source
        ]
    embedded = encoder.embed(source, RATE, STANDARD_LEADS)
    assert embedded.dtype == np.float32
    assert embedded.shape == (2, encoder.embed_dim)
    np.testing.assert_allclose(embedded, expected, atol=1e-6)


def test_embeddings_do_not_depend_on_the_batch_size(encoder):
    from dataclasses import replace

    source = signal(5)
    one = replace(encoder, batch_size=1).embed(source, RATE, STANDARD_LEADS)
    np.testing.assert_allclose(encoder.embed(source, RATE, STANDARD_LEADS), one, atol=1e-6)


def test_lead_order_and_unit_do_not_matter_and_conversions_are_logged(encoder, caplog):
    source = signal()
    order = np.random.default_rng(1).permutation(12)
    names = [STANDARD_LEADS[index] for index in order]
    with caplog.at_level(logging.INFO):
        converted = encoder.embed(source[:, order] * 1000, RATE, names, unit="uV")
    np.testing.assert_allclose(converted, encoder.embed(source, RATE, STANDARD_LEADS), atol=1e-5)
    assert "tiny: input uV converted to mV" in caplog.text


def test_a_single_record_may_come_without_its_axis(encoder):
    source = signal(1)
    np.testing.assert_array_equal(
        encoder.embed(source[0], RATE, STANDARD_LEADS), encoder.embed(source, RATE, STANDARD_LEADS)
    )
    with pytest.raises(DataError, match=r"signal of shape \(3,\)"):
        encoder.embed(np.zeros(3), RATE, ["I"])


def test_frames_of_all_segments_follow_each_other(encoder):
    source = signal()
    frames = encoder.frames(source, RATE, STANDARD_LEADS)
    first = encoder.frames(source[:, :, :NUM_SAMPLES], RATE, STANDARD_LEADS)
    assert frames.shape == (2, 2 * first.shape[1], encoder.embed_dim)
    np.testing.assert_allclose(frames[:, : first.shape[1]], first, atol=1e-6)
    np.testing.assert_allclose(frames.mean(axis=1), encoder.embed(source, RATE, STANDARD_LEADS), atol=1e-6)


def test_padding_of_a_short_record_is_masked(encoder):
    short = signal(1, num_samples=NUM_SAMPLES - 60)
    frames = encoder.frames(short, RATE, STANDARD_LEADS)
    padded = np.pad(short, ((0, 0), (0, 0), (0, 60)))
    mask = torch.arange(NUM_SAMPLES)[None] >= NUM_SAMPLES - 60
    with torch.no_grad():
        output = encoder.model.encode(torch.from_numpy(padded), mask)
    assert np.isnan(frames).any(axis=-1).tolist() == output.padding_mask.tolist()
    expected = masked_mean(output.frames, output.padding_mask).numpy()
    np.testing.assert_allclose(encoder.embed(short, RATE, STANDARD_LEADS), expected, atol=1e-6)


def test_a_random_twin_is_fixed_by_its_seed_and_leaves_the_generator_alone(encoder):
    source = signal()
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    twin, same, other = encoder.random_twin(1), encoder.random_twin(1), encoder.random_twin(2)
    assert torch.rand(1) == expected_draw
    embedded = twin.embed(source, RATE, STANDARD_LEADS)
    assert np.array_equal(embedded, same.embed(source, RATE, STANDARD_LEADS))
    assert not np.allclose(embedded, other.embed(source, RATE, STANDARD_LEADS))
    assert not np.allclose(embedded, encoder.embed(source, RATE, STANDARD_LEADS))
    assert twin.sources == ()


def test_what_makes_no_frames_is_no_encoder():
    with pytest.raises(CheckpointError, match="Linear is no encoder"):
        Encoder(model=torch.nn.Linear(1, 1), contract=CONTRACT, name="linear")
    with pytest.raises(ConfigError, match="unknown filter 'comb'"):
        Encoder(model=make_model(), contract=InputContract(filter="comb"), name="tiny")


def test_our_checkpoints_are_found_by_run_folder_link_and_reference_name(tmp_path, encoder):
    run = save_checkpoint(tmp_path / "run", encoder.model, sources=("tiny",))
    source = signal()
    expected = encoder.embed(source, RATE, STANDARD_LEADS)
    for path in (run, run / "checkpoints" / "u0000001", run / "checkpoints" / "checkpoint_last.pt"):
        loaded = load_encoder(path)
        assert loaded.contract == CONTRACT
        assert loaded.sources == ("tiny",)
        assert loaded.report is not None
        assert not loaded.report.missing
        assert np.array_equal(loaded.embed(source, RATE, STANDARD_LEADS), expected)
    assert fairseq_ecg.load_encoder(run).name == str(run)
    with pytest.raises(CheckpointError, match="leave format='fairseq_signals' out"):
        load_encoder(run, format="fairseq_signals")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_encoder(tmp_path / "absent")


def test_a_foreign_file_is_recognised_and_an_unknown_one_named(tmp_path, shared):
    path = shared / "golden" / "fairseq_signals_classifier" / "checkpoint_best.pt"
    loaded = load_encoder(path)
    named = load_encoder(path, format="fairseq_signals")
    source = signal(1, num_samples=5 * loaded.contract.sampling_rate)
    rate = loaded.contract.sampling_rate
    embedded = loaded.embed(source, rate, STANDARD_LEADS)
    assert embedded.shape == (1, loaded.embed_dim)
    assert np.array_equal(embedded, named.embed(source, rate, STANDARD_LEADS))
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of any known format"):
        load_encoder(tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="unknown importer 'fairseq_signal'"):
        load_encoder(path, format="fairseq_signal")


def test_a_model_is_created_by_its_registered_name():
    model = create_model("ecg_transformer", encoder_layers=1, encoder_embed_dim=48)
    assert model.cfg.encoder_layers == 1
    with pytest.raises(ConfigError, match="ecg_transformr"):
        create_model("ecg_transformr")
    with pytest.raises(ConfigError, match="encoder_layer"):
        create_model("ecg_transformer", encoder_layer=1)


def test_a_device_that_is_not_there_is_refused():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device 'nonsense'"):
        pick_device("nonsense")
