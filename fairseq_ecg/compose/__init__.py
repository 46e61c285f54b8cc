"""The front door: command lines and YAML files become finished, validated configs."""

from fairseq_ecg.compose.argv import Invocation, parse_argv
from fairseq_ecg.compose.finish import Draft, component_from_dict, config_from_dict, finish
from fairseq_ecg.compose.load import load_config, read_draft

__all__ = [
    "Draft",
    "Invocation",
    "component_from_dict",
    "config_from_dict",
    "finish",
    "load_config",
    "parse_argv",
    "read_draft",
]
