import pytest

from quire.near_names import did_you_mean, nearest

FLAGS = ("--temperature", "--max-model-len", "--max-num-seqs", "--model")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("--temprature", ["--temperature"]),
        ("--Max_Model_Len", ["--max-model-len"]),
        ("--max-num-seq", ["--max-num-seqs"]),
        ("--chat-template", []),
        ("--x", []),
    ],
)
def test_only_what_is_really_near(name: str, near: list[str]) -> None:
    assert nearest(name, FLAGS)[:1] == near


def test_a_suggestion_is_the_end_of_a_line() -> None:
    assert did_you_mean("modle", ["model", "mode"]) == "; did you mean mode or model?"
    assert did_you_mean("x", ["model"]) == ""
