from quire.cli.block_picture import WIDTH, draw, num_used


def test_one_cell_a_block_and_a_legend() -> None:
    picture = draw(bytes([0, 1, 1, 2, 3, 0]), colours=False)
    assert picture.splitlines() == ["·██▓░·", "· 2 free   █ 2 in use   ▓ 1 shared   ░ 1 cached"]


def test_long_maps_wrap() -> None:
    lines = draw(bytes(WIDTH + 3), colours=False).splitlines()
    assert [len(line) for line in lines[:-1]] == [WIDTH, 3]


def test_colours_change_no_cell() -> None:
    blocks = bytes([0, 1, 2, 3] * 5)
    plain, coloured = draw(blocks, colours=False), draw(blocks, colours=True)
    for code in ("90", "32", "35", "34"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured.replace("\x1b[0m", "") == plain


def test_used_is_what_requests_hold() -> None:
    assert num_used(bytes([0, 1, 2, 3, 1])) == 3
