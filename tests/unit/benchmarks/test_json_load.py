"""The load of the benchmark of constrained output: endless lists, made-up vocabularies."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu_parts.json_load import endless, write_tokenizer
from transformers import AutoTokenizer

from quire.structured_outputs.check import check_schema
from quire.structured_outputs.token_table import token_table
from tests.unit.structured_outputs.grammars import compiled, follows


def test_a_list_has_no_end_and_what_its_items_refer_to_is_found() -> None:
    item = {"$defs": {"part": {"type": "integer"}}, "$ref": "#/$defs/part"}
    schema = endless(item)
    check_schema(schema)
    schema["properties"]["items"]["minItems"] = 2
    grammar = compiled(json=schema)
    assert follows(grammar, '{"items":[1,2]}')
    assert not follows(grammar, '{"items":[1,"a"]}') and not follows(grammar, '{"items":[1]}')


def test_a_made_up_vocabulary_has_every_byte_and_the_models_size(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 1000)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    table = token_table(tokenizer, 1000, [tokenizer.eos_token_id])
    assert len(tokenizer) == 1000 and len({*table.tokens}) == 999  # two are special
    assert {bytes([byte]) for byte in range(256)} <= {*table.tokens}
    assert {b'"},{"', b'{"', b": "} <= {*table.tokens}
    assert tokenizer.encode("é a") == [tokenizer.get_vocab()[char] for char in ("Ã", "©", "Ġ", "a")]
