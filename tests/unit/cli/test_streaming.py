from quire.cli.streaming import InOrder


def test_later_streams_wait_for_earlier_ones() -> None:
    screen = InOrder(3, lambda index: f"{index}:")
    assert screen.feed(1, "b1", False) == "0:"
    assert screen.feed(0, "a1", False) == "a1"
    assert screen.feed(2, "c1", True) == ""
    assert screen.feed(0, "a2", True) == "a2\n1:b1"
    assert screen.feed(1, "b2", True) == "b2\n2:c1\n"
