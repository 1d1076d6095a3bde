"""Models by name: folders, the Hugging Face Hub and ModelScope, both played by a local fake."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from quire.args import EngineArgs
from quire.errors import ModelLoadError, UnsupportedModelError
from quire.model_files import find_model_files
from quire.weights.hub import resolve_model
from quire.weights.hub_files import QUANTIZER_FILES
from tests.fakes.hub import FILES, NAME, FakeHub, file_names


def test_local_folder_is_used_as_it_is(hub: FakeHub, tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path
    assert hub.num_requests == 0


@pytest.mark.parametrize("model", ["/nonexistent", "./x", "~/no/such", "a/b/c", "owner/name/", "."])
def test_missing_path_is_an_error_and_no_hub_is_asked(
    hub: FakeHub, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if model == ".":
        assert resolve_model(model) == Path(".")
    else:
        with pytest.raises(ModelLoadError, match="does not exist"):
            resolve_model(model)
    assert hub.num_requests == 0


@pytest.mark.parametrize("model", ["", "  "])
def test_empty_name_is_not_the_current_folder(hub: FakeHub, model: str) -> None:
    with pytest.raises(ModelLoadError, match="the model's name is empty; give a hub's name or a"):
        resolve_model(model)
    assert hub.num_requests == 0


def test_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelLoadError, match="is a file; give the folder"):
        resolve_model(str(file))


def test_impossible_name_is_refused(hub: FakeHub) -> None:
    with pytest.raises(ModelLoadError, match="neither a folder here nor a hub's name"):
        resolve_model("what is this")
    assert hub.num_requests == 0


def test_download_takes_config_tokenizer_and_safetensors_only(any_hub: FakeHub) -> None:
    folder = resolve_model(NAME)
    assert file_names(folder) == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("name", QUANTIZER_FILES)
@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_weights_that_only_their_tool_calls_quantized_are_refused(
    any_hub: FakeHub, name: str, load_format: str
) -> None:
    config = {"architectures": ["LlamaForCausalLM"]}
    any_hub.repositories[NAME].files |= {
        "config.json": json.dumps(config).encode(),
        name: b'{"quantization": {"quant_algo": "FP8"}}',
    }
    with pytest.raises(UnsupportedModelError, match=f"has {name}: quantized weights are not supp"):
        find_model_files(EngineArgs(NAME, load_format=load_format))


def test_tokenizer_in_mistrals_own_file_is_downloaded(any_hub: FakeHub) -> None:
    files = any_hub.repositories[NAME].files
    files["tekken.json"] = files.pop("tokenizer.json")
    assert "tekken.json" in file_names(resolve_model(NAME, what="tokenizer"))


def test_chat_templates_in_their_folder_come_with_the_tokenizer(any_hub: FakeHub) -> None:
    files = any_hub.repositories[NAME].files
    files["additional_chat_templates/tool_use.jinja"] = b"tools"
    files["additional_chat_templates/old/tool_use.jinja"] = b"old"
    files["examples/chat.jinja"] = b"example"
    folder = resolve_model(NAME, what="tokenizer")
    assert (folder / "additional_chat_templates" / "tool_use.jinja").read_bytes() == b"tools"
    assert len(list(folder.rglob("*.jinja"))) == 1


def test_bin_is_taken_where_there_are_no_safetensors(any_hub: FakeHub) -> None:
    del any_hub.repositories[NAME].files["model.safetensors"]
    assert "pytorch_model.bin" in file_names(resolve_model(NAME))


def test_load_format_pt_takes_bin_although_there_are_safetensors(any_hub: FakeHub) -> None:
    folder = resolve_model(NAME, load_format="pt")
    assert "pytorch_model.bin" in file_names(folder)
    assert "model.safetensors" not in file_names(folder)


def test_config_alone_then_the_rest_in_the_same_folder(any_hub: FakeHub) -> None:
    config = resolve_model(NAME, what="config")
    assert not any("model" in name for name in any_hub.downloads)
    weights = resolve_model(NAME)
    assert config == weights
    assert any_hub.downloads.count("config.json") == 1


def test_second_download_sends_no_file_again(any_hub: FakeHub) -> None:
    first = resolve_model(NAME)
    sent = list(any_hub.downloads)
    assert resolve_model(NAME) == first
    assert any_hub.downloads == sent


def test_download_dir_takes_the_place_of_the_cache(any_hub: FakeHub, tmp_path: Path) -> None:
    folder = resolve_model(NAME, download_dir=tmp_path / "models")
    assert (tmp_path / "models") in folder.parents


def test_revision_is_passed_on_and_a_wrong_one_named(any_hub: FakeHub) -> None:
    any_hub.repositories[NAME].revisions = ("main", "master", "v1.1.8")
    assert (resolve_model(NAME, revision="v1.1.8") / "config.json").is_file()
    with pytest.raises(ModelLoadError, match="revision 'v2'"):
        resolve_model(NAME, revision="v2")


def test_unknown_model_is_one_clear_line(any_hub: FakeHub) -> None:
    with pytest.raises(ModelLoadError, match="neither a folder here nor a model on") as error:
        resolve_model("owner/unknown")
    assert "\n" not in str(error.value)


def test_repository_without_weights_lists_what_it_has(any_hub: FakeHub) -> None:
    any_hub.repositories[NAME].files = {"config.json": b"{}", "model.gguf": b"g"}
    with pytest.raises(ModelLoadError, match=r"no weights .* found config.json, model.gguf"):
        resolve_model(NAME)


@pytest.mark.parametrize(
    ("file", "clause"),
    [
        ("consolidated.safetensors", "is laid out for its maker's own code; give a repository"),
        ("adapter_model.safetensors", "is a LoRA adapter without its model; merge it into"),
        ("tiny-Q4_K_M.gguf", r"is in the format of llama\.cpp; give the repository"),
    ],
)
def test_weights_that_are_not_read_are_named_for_what_they_are(
    any_hub: FakeHub, file: str, clause: str
) -> None:
    any_hub.repositories[NAME].files = {"README.md": b"", file: b"w"}
    with pytest.raises(ModelLoadError, match=rf"no weights .*; {file} {clause}"):
        resolve_model(NAME)


@pytest.mark.parametrize("below", ["", "models"])
def test_download_dir_that_is_a_file_is_one_clear_line(
    any_hub: FakeHub, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match=r"/file is a file; give a folder") as error:
        resolve_model(NAME, download_dir=tmp_path / "file" / below)
    assert "\n" not in str(error.value)
    assert any_hub.num_requests == 0


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "MODELSCOPE_CACHE"])
def test_cache_below_a_file_is_one_clear_line(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", str(int(variable == "MODELSCOPE_CACHE")))
    with pytest.raises(ModelLoadError, match=rf"/file is a file; give a folder .* {variable}$"):
        resolve_model(NAME)
    assert hub.num_requests == 0


def test_cache_that_cannot_be_written_is_one_clear_line(any_hub: FakeHub, tmp_path: Path) -> None:
    for storage in ("models--owner--tiny-1.0", "models/owner--tiny-1.0"):
        file = tmp_path / "cache" / storage  # where a folder is to be
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with pytest.raises(ModelLoadError, match=r"the cache cannot be written .* --down") as error:
        resolve_model(NAME, download_dir=tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_full_disk_is_an_error_before_anything_is_downloaded(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 1500, 500))
    with pytest.raises(ModelLoadError, match=r"needs .* more and .* has 500 B.* --download-dir"):
        resolve_model(NAME)
    assert any_hub.downloads == []


def test_only_what_is_missing_counts_against_the_disk(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_model(NAME)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 2000, 0))
    assert "model.safetensors" in file_names(resolve_model(NAME))


def test_what_another_commit_brought_does_not_count_against_the_disk(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = resolve_model(NAME)
    hub.repositories[NAME].files["README.md"] = b"new"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 2000, 0))
    newer = resolve_model(NAME)
    assert newer != older
    assert file_names(newer) == file_names(older)


def test_full_disk_leaves_the_copy_there_is(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older = resolve_model(NAME)
    any_hub.repositories[NAME].files["model.safetensors"] = b"t" * 2000
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2000, 2000, 0))
    assert resolve_model(NAME) == older
    assert "has 0 B free; using the copy in" in caplog.text


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_uses_the_cache_and_asks_nobody(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    online = resolve_model(NAME)
    asked = any_hub.num_requests
    monkeypatch.setenv(variable, "1")
    assert resolve_model(NAME) == online
    assert any_hub.num_requests == asked


def test_offline_without_a_cached_copy_is_an_error(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match=r"HF_HUB_OFFLINE is set, and .* is not in"):
        resolve_model(NAME)


def test_offline_with_the_config_alone_does_not_pass_for_the_model(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_model(NAME, what="config")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME, what="config").is_dir()
    with pytest.raises(ModelLoadError, match="only in part"):
        resolve_model(NAME)


def test_folder_with_a_tokenizer_alone_is_whole_without_a_config(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    del any_hub.repositories[NAME].files["config.json"]
    online = resolve_model(NAME, what="tokenizer")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME, what="tokenizer") == online


def test_offline_with_the_config_alone_does_not_pass_for_the_tokenizer(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_model(NAME, what="config")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match="only in part"):
        resolve_model(NAME, what="tokenizer")


SHARDS = {f"model-0000{i}-of-00003.safetensors": b"s" * 100 for i in (1, 2, 3)}
INDEX = json.dumps({"weight_map": dict(zip("abc", SHARDS, strict=True))}).encode()


@pytest.mark.parametrize("note", ["whole", "damaged", "none"])  # none: not our download
@pytest.mark.parametrize("index", [{}, {"model.safetensors.index.json": INDEX}])
def test_interrupted_download_does_not_pass_for_the_model(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, index: dict[str, bytes], note: str
) -> None:
    any_hub.repositories[NAME].files = {"config.json": b"{}"} | index | SHARDS
    folder = resolve_model(NAME)
    if note == "damaged":
        (folder / ".quire.json").write_text("{")
    elif note == "none":
        (folder / ".quire.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME) == folder
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"^HF_HUB_OFFLINE is set, and .* is only in part in"):
        resolve_model(NAME)


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer.json"])
def test_copy_without_a_file_that_the_hub_lists_does_not_pass_for_the_model(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    any_hub.failing[file] = 404
    with pytest.raises(ModelLoadError, match=file):
        resolve_model(NAME)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match=rf"only in part in .* \(missing: .*{file}.*\); go"):
        resolve_model(NAME)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    any_hub.failing.clear()
    folder = resolve_model(NAME)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME) == folder
    assert file in file_names(folder)


def test_many_missing_files_are_counted(hub: FakeHub) -> None:
    hub.failing = dict.fromkeys(FILES, 404)
    with pytest.raises(ModelLoadError, match=r"\(missing: config.json, .*, .* and 2 more\)"):
        resolve_model(NAME)


def test_download_that_came_short_is_one_clear_line(hub: FakeHub) -> None:
    hub.cut = {"model.safetensors"}
    with pytest.raises(ModelLoadError, match=r"is damaged .*only in part .*; try again") as error:
        resolve_model(NAME)
    assert "\n" not in str(error.value)
    hub.cut.clear()
    assert (resolve_model(NAME) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_download_of_which_nothing_came_does_not_pass_for_the_model(hub: FakeHub) -> None:
    hub.tree_status = 501  # a status after which the client does not try again
    with pytest.raises(ModelLoadError, match=r"is incomplete, .*\(missing: config.json, .*try a"):
        resolve_model(NAME)
    hub.tree_status = 200
    assert "model.safetensors" in file_names(resolve_model(NAME))


def test_update_of_which_nothing_came_leaves_the_older_copy(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older = resolve_model(NAME)
    hub.repositories[NAME].files["README.md"] = b"new"
    hub.tree_status = 501
    assert resolve_model(NAME) == older
    assert "is incomplete; using the copy in" in caplog.text
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        assert resolve_model(NAME) == older
    hub.tree_status = 200
    newer = resolve_model(NAME)
    assert newer != older
    assert file_names(newer) == file_names(older)


def test_file_of_wrong_size_is_downloaded_again(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = resolve_model(NAME) / "model.safetensors"
    file.write_bytes(b"s" * 10)
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelLoadError, match=r"\(missing: model.safetensors\); go online once"):
            resolve_model(NAME)
    assert resolve_model(NAME) == file.parent
    assert file.read_bytes() == FILES["model.safetensors"]
    assert any_hub.downloads.count("config.json") == 1


def test_content_of_wrong_size_is_not_taken_from_the_older_copy(hub: FakeHub) -> None:
    older = resolve_model(NAME)
    (older / "model.safetensors").write_bytes(b"s" * 10)
    hub.repositories[NAME].files["README.md"] = b"new"
    newer = resolve_model(NAME)
    assert newer != older
    assert (newer / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_failed_update_leaves_the_older_copy(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older = resolve_model(NAME)
    hub.repositories[NAME].files["model.safetensors"] = b"t" * 1000
    hub.failing["model.safetensors"] = 500
    assert resolve_model(NAME) == older
    assert "answers HTTP 500" in caplog.text
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        assert resolve_model(NAME) == older
    hub.failing.clear()
    newer = resolve_model(NAME)
    assert newer != older
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME) == newer


def test_update_that_cannot_be_written_leaves_the_older_copy(
    hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    older = resolve_model(NAME)
    hub.repositories[NAME].files["README.md"] = b"new"
    (older.parent / hub.repositories[NAME].commit).touch()  # where a folder is to be
    assert resolve_model(NAME) == older
    assert "the cache cannot be written" in caplog.text


def test_new_config_alone_does_not_take_the_older_models_place(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = resolve_model(NAME)
    hub.repositories[NAME].files["config.json"] = b"{}"
    newer = resolve_model(NAME, what="config")
    assert newer != older
    hub.status = 503
    assert resolve_model(NAME) == older


def test_failed_modelscope_update_is_an_error_for_files_are_replaced_in_place(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    resolve_model(NAME)
    hub.repositories[NAME].files["model.safetensors"] = b"t" * 1000
    hub.failing["model.safetensors"] = 404
    with pytest.raises(ModelLoadError, match=r"lists model\.safetensors of .* \(HTTP 404\); try"):
        resolve_model(NAME)


def test_modelscope_copy_that_cannot_be_written_is_used_as_it_is(
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def deny(old: Path, new: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setenv("QUIRE_USE_MODELSCOPE", "1")
    copy = resolve_model(NAME)
    hub.repositories[NAME].files["model.safetensors"] = b"t" * 1000
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # rights do not stop root
    monkeypatch.setattr(os, "replace", deny)
    assert resolve_model(NAME) == copy
    assert "the cache cannot be written (Permission denied); using the copy in" in caplog.text


def test_index_that_names_a_file_the_hub_does_not_list_is_an_error(any_hub: FakeHub) -> None:
    files = {"config.json": b"{}", "model-1.safetensors": b"w"}
    index = {"model.safetensors.index.json": index_of("model-1.safetensors", "gone.safetensors")}
    any_hub.repositories[NAME].files = files | index
    with pytest.raises(
        ModelLoadError, match=r"^model\.safetensors\.index\.json of .* names 1 of 2 .*gone\.safet"
    ):
        resolve_model(NAME)


def test_new_index_of_equal_size_says_which_weights_are_downloaded(any_hub: FakeHub) -> None:
    for shard in ("a.safetensors", "b.safetensors"):
        index = {"model.safetensors.index.json": index_of(shard)}
        any_hub.repositories[NAME].files = {"config.json": b"{}", shard: shard.encode()} | index
        assert {name for name in file_names(resolve_model(NAME)) if "index" not in name} == {
            "config.json",
            shard,
        }


def test_unreachable_hub_is_the_cause_where_the_copy_has_holes(hub: FakeHub) -> None:
    hub.repositories[NAME].files = {"config.json": b"{}"} | SHARDS
    (resolve_model(NAME) / "model-00003-of-00003.safetensors").unlink()
    hub.status = 503
    with pytest.raises(ModelLoadError, match=r"answers HTTP 503 for .* is only in part in"):
        resolve_model(NAME)


def index_of(*shards: str) -> bytes:
    """An index of one tensor per shard."""
    names = dict(zip("abcdefg", shards, strict=False))
    return json.dumps({"metadata": {}, "weight_map": names}).encode()


@pytest.mark.parametrize(
    ("shards", "others", "read"),
    [
        (["model.safetensors"], ["model.safetensors", "adapters.safetensors"], "model.safetensors"),
        (["gone-1.safetensors"], ["model.safetensors", "heads.safetensors"], "model.safetensors"),
        (["w/a.safetensors"], ["w/a.safetensors", "w/b.safetensors"], "w/a.safetensors"),
    ],
)
@pytest.mark.parametrize("note", [True, False])
def test_index_says_which_weights_are_downloaded(
    any_hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    shards: list[str],
    others: list[str],
    read: str,
    note: bool,
) -> None:
    weights = dict.fromkeys(others, b"w")
    index = {"model.safetensors.index.json": index_of(*shards)}
    any_hub.repositories[NAME].files = {"config.json": b"{}"} | index | weights
    folder = resolve_model(NAME)
    assert sorted(any_hub.downloads) == sorted(["config.json", *index, read])
    if not note:
        (folder / ".quire.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_model(NAME) == folder
    (folder / read).unlink()
    with pytest.raises(ModelLoadError, match="only in part"):
        resolve_model(NAME)


def test_download_that_broke_off_behind_the_index_is_not_the_model(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {"model.safetensors.index.json": INDEX}
    shards = {name: name.encode() for name in SHARDS}  # equal ones would come as one
    any_hub.repositories[NAME].files = {"config.json": b"{}"} | index | shards
    shard = sorted(SHARDS)[1]
    any_hub.failing[shard] = 404
    with pytest.raises(ModelLoadError, match=NAME):
        resolve_model(NAME)
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelLoadError, match=rf"only in part .*\(missing: .*{shard}"):
            resolve_model(NAME)
    any_hub.failing.clear()
    assert set(SHARDS) < file_names(resolve_model(NAME))


def test_what_the_repository_no_more_holds_is_not_used(
    any_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {"model.safetensors.index.json": INDEX}
    common = {"config.json": b"{}", "tokenizer.json": b"{}"}
    template = {"chat_template.jinja": b"old", "additional_chat_templates/tool.jinja": b"old"}
    any_hub.repositories[NAME].files = common | template | index | SHARDS
    own = resolve_model(NAME) / "mine.txt"
    own.touch()
    any_hub.repositories[NAME].files = common | {"model.safetensors": b"new"}
    folder = resolve_model(NAME)
    assert file_names(folder) - {"mine.txt", "additional_chat_templates"} == {
        *common,
        "model.safetensors",
    }
    assert not list(folder.rglob("*.jinja"))
    assert own.is_file()
    any_hub.repositories[NAME].files = common | index | SHARDS
    assert set(SHARDS) < file_names(resolve_model(NAME))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert set(SHARDS) < file_names(resolve_model(NAME))
