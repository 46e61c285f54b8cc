from __future__ import annotations

import pytest

from fairseq_ecg.compose.argv import parse_argv, parse_override
from fairseq_ecg.errors import ConfigError


def test_overrides_may_stand_on_either_side_of_the_flags():
    parsed = parse_argv(["task.data=a", "--config-dir", "b", "model.x=1", "--config-name=c", "+model.y=2"])
    assert [str(override) for override in parsed.overrides] == ["task.data=a", "model.x=1", "model.y=2"]
    assert (parsed.config_dir, parsed.config_name) == ("b", "c")


@pytest.mark.parametrize(
    "argv",
    [
        ["-cd", "b", "-cn", "c", "--cfg", "job", "-m"],
        ["--config-path=b", "--config-name", "c", "-c", "job", "--multirun"],
    ],
)
def test_every_spelling_of_a_flag_is_understood(argv):
    parsed = parse_argv(argv)
    assert (parsed.config_dir, parsed.config_name, parsed.show, parsed.multirun) == ("b", "c", "job", True)


@pytest.mark.parametrize("text", ["task.data=/a/b=c,d=e", "+task.data=/a/b=c,d=e", "++task.data=/a/b=c,d=e"])
def test_a_value_may_hold_equals_signs_and_commas(text):
    override = parse_override(text)
    assert (override.key, override.value) == ("task.data", "/a/b=c,d=e")


@pytest.mark.parametrize("text", ["task.data='my data'", 'task.data="my data"'])
def test_quotes_around_a_value_are_dropped(text):
    assert parse_override(text).value == "my data"


def test_quotes_inside_a_value_stay():
    assert parse_override("common_eval.model_overrides={'a': 'b'}").value == "{'a': 'b'}"


def test_a_tilde_deletes():
    assert parse_override("~model.final_dim").delete


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["task.data"], "group.key=value"),
        (["=3"], "not a key"),
        (["a b=3"], "not a key"),
        ([" "], "line continuation"),
        (["--config-name"], "needs a value"),
        (["--cfg", "hydra"], "only --cfg job"),
        (["--config-nam", "x"], "--config-name"),
        (["--max-epoch", "3"], "optimization.max_epoch=VALUE"),
        (["--lr=3"], "optimization.lr=VALUE"),
    ],
)
def test_a_malformed_argument_is_refused_with_what_to_write(argv, hint):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as refusal:
        parse_argv(argv)
    assert hint in str(refusal.value)


def test_a_multirun_is_the_product_of_its_choices():
    parsed = parse_argv(["-m", "optimization.lr=1e-4,1e-5", "task.data=/a=b", "common.seed=range(1,3)"])
    jobs = [[str(override) for override in job.overrides] for job in parsed.jobs()]
    assert jobs == [
        ["optimization.lr=0.0001", "task.data=/a=b", "common.seed=1"],
        ["optimization.lr=0.0001", "task.data=/a=b", "common.seed=2"],
        ["optimization.lr=1e-05", "task.data=/a=b", "common.seed=1"],
        ["optimization.lr=1e-05", "task.data=/a=b", "common.seed=2"],
    ]
    assert parsed.swept == ["optimization.lr", "common.seed"]


def test_a_quoted_comma_list_and_a_bracketed_list_are_one_value_of_a_multirun():
    parsed = parse_argv(["-m", "dataset.valid_subset='valid,test'", "optimization.lr=[1,2],[3]"])
    values = [[override.value for override in job.overrides] for job in parsed.jobs()]
    assert values == [["valid,test", "[1,2]"], ["valid,test", "[3]"]]


def test_without_multirun_there_is_one_job_whatever_the_commas():
    assert len(parse_argv(["dataset.valid_subset=valid,test"]).jobs()) == 1
