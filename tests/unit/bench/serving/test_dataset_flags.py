from __future__ import annotations

import argparse

import pytest

from quire.bench import serve
from quire.bench.serving.dataset_flags import OPTIONS, settle_dataset
from quire.bench.serving.datasets import DATASETS
from quire.cli.parser import Parser


def parser() -> Parser:
    result = Parser(prog="x", description=None)
    serve.add_arguments(result)
    return result


def settled(*words: str) -> argparse.Namespace:
    arguments = parser().parse(words)
    settle_dataset(arguments)
    return arguments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--workload nano", "random takes no --workload .that is for standard.; leave that out"),
        ("--scale 0.5", "random takes no --scale .that is for standard"),
        ("--dataset-path f.jsonl", "random takes no --dataset-path .that is for sharegpt and cust"),
        ("--prefix-repetition-prefix-len 8", "no --prefix-repetition-prefix-len .* prefix_repet"),
        ("--no-oversample", "random takes no --no-oversample"),
        ("--dataset-name custom --random-prefix-len 0", "custom takes no --random-prefix-len"),
        ("--dataset-name prefix_repetition --output-len 9", "prefix_repetition takes no --output"),
        ("--dataset-name standard --num-prompts 4", "standard takes no --num-prompts .* random"),
        ("--input-len 10 --random-input-len 500", "--input-len 10 and --random-input-len 500 say"),
        ("--output-len 3 --random-output-len 9", "--output-len 3 and --random-output-len 9 say"),
        ("--dataset-name custom --output-len 3 --custom-output-len 9", "give only one of them"),
        ("--dataset-name sharegpt --output-len 3 --sharegpt-output-len 9", "give only one of them"),
        (
            "--dataset-name custom --skip-chat-template --backend openai-chat",
            "--skip-chat-template has no effect with --backend openai-chat",
        ),
        ("--workload nano --scale 1", r"no --workload \(.*\), no --scale \(.*\); leave"),
    ],
)
def test_what_the_dataset_would_ignore_is_refused(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settled(*words.split())


@pytest.mark.parametrize("dataset", DATASETS)
def test_what_was_not_given_has_its_default(dataset: str) -> None:
    given = vars(settled("--dataset-name", dataset))
    assert {name: given[name] for name in OPTIONS} == {
        name: option.default for name, option in OPTIONS.items()
    }


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("random", "random_output_len"),
        ("sharegpt", "sharegpt_output_len"),
        ("custom", "custom_output_len"),
    ],
)
def test_a_length_may_be_given_under_the_name_that_datasets_share(dataset: str, name: str) -> None:
    given = vars(settled("--dataset-name", dataset, "--output-len", "7"))
    assert given[name] == 7
    others = {"random_output_len", "sharegpt_output_len", "custom_output_len"} - {name}
    assert all(given[other] == OPTIONS[other].default for other in others)


def test_what_was_given_stays() -> None:
    given = settled("--dataset-name", "standard", "--workload", "single", "--scale", "0.5")
    assert (given.workload, given.scale) == ("single", 0.5)


def test_every_option_is_of_datasets_that_there_are() -> None:
    known = vars(parser().parse([]))
    for name, option in OPTIONS.items():
        assert known[name] is None and set(option.datasets) < set(DATASETS)


def test_every_flag_says_what_it_is() -> None:
    assert [action.option_strings for action in parser()._actions if not action.help] == []
