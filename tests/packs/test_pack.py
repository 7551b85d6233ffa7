from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from serve_app.core.errors import PackCorrupt, PackError, PackIncomplete, PackNotFound
from serve_app.engines.paraformer.network import ParaformerNet, parse_shape
from serve_app.packs.pack import load_into, load_weights, open_pack
from tests.fakes.tiny_packs import write_cmvn, write_paraformer


@pytest.fixture
def pack_dir(tmp_path: Path) -> Path:
    return write_paraformer(tmp_path / "tiny")


def _edit_config(pack_dir: Path, **changes: object) -> None:
    config = yaml.safe_load((pack_dir / "config.yaml").read_text())
    config.update(changes)
    (pack_dir / "config.yaml").write_text(yaml.safe_dump(config))


def _edit_tokens(pack_dir: Path, change: Callable[[list[str]], None]) -> None:
    tokens = json.loads((pack_dir / "tokens.json").read_text("utf-8"))
    change(tokens)
    (pack_dir / "tokens.json").write_text(json.dumps(tokens), "utf-8")


def _edit_weights(pack_dir: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = torch.load(pack_dir / "model.pt")["state_dict"]
    change(state)
    torch.save(state, pack_dir / "model.pt")


def _fresh_net(pack_dir: Path) -> ParaformerNet:
    with torch.device("meta"):
        return ParaformerNet(parse_shape(open_pack(pack_dir)))


def test_whole_pack_opens_with_its_facts(pack_dir: Path) -> None:
    pack = open_pack(pack_dir)
    assert pack.name == "tiny"
    assert pack.model_class == "Paraformer"
    assert pack.tokens[:3] == ("<blank>", "<s>", "</s>")
    assert pack.cmvn is not None
    assert pack.cmvn.shape == (2, 560)
    assert pack.cmvn[:, 0].tolist() == [-10.0, 0.25]
    assert pack.checksum == hashlib.sha256((pack_dir / "model.pt").read_bytes()).hexdigest()


def test_given_name_appears_in_errors(tmp_path: Path) -> None:
    with pytest.raises(PackNotFound, match=r"model pack my-name: .*models pull my-name"):
        open_pack(tmp_path / "nowhere", "my-name")


@pytest.mark.parametrize("with_configuration", [True, False])
@pytest.mark.parametrize("file_name", ["config.yaml", "model.pt", "tokens.json", "am.mvn"])
def test_missing_file_is_named(pack_dir: Path, file_name: str, with_configuration: bool) -> None:
    (pack_dir / file_name).unlink()
    if not with_configuration:
        (pack_dir / "configuration.json").unlink()
    with pytest.raises(PackIncomplete, match=file_name) as caught:
        open_pack(pack_dir)
    assert "paraserve models pull tiny" in str(caught.value)


def test_pack_without_configuration_json_opens(pack_dir: Path) -> None:
    (pack_dir / "configuration.json").unlink()
    assert len(open_pack(pack_dir).tokens) == 20


def test_file_names_in_configuration_json_are_honored(pack_dir: Path) -> None:
    (pack_dir / "model.pt").rename(pack_dir / "model.pb")
    configuration = (pack_dir / "configuration.json").read_text().replace("model.pt", "model.pb")
    (pack_dir / "configuration.json").write_text(configuration)
    assert open_pack(pack_dir).weights == pack_dir / "model.pb"


def test_file_that_serving_does_not_read_may_be_missing(pack_dir: Path) -> None:
    configuration = json.loads((pack_dir / "configuration.json").read_text())
    configuration["file_path_metas"]["tokenizer_conf"]["jieba_usr_dict"] = "jieba_usr_dict"
    (pack_dir / "configuration.json").write_text(json.dumps(configuration))
    assert open_pack(pack_dir).model_class == "Paraformer"


@pytest.mark.parametrize("outside", ["../other/model.pt", "/etc/passwd"])
def test_file_names_outside_of_the_pack_are_refused(pack_dir: Path, outside: str) -> None:
    configuration = (pack_dir / "configuration.json").read_text().replace("model.pt", outside)
    (pack_dir / "configuration.json").write_text(configuration)
    with pytest.raises(PackCorrupt, match="outside"):
        open_pack(pack_dir)


@pytest.mark.parametrize(
    "file_name", ["config.yaml", "tokens.json", "am.mvn", "configuration.json"]
)
def test_unreadable_file_is_named(pack_dir: Path, file_name: str) -> None:
    (pack_dir / file_name).write_bytes(b"{[ \xff")
    with pytest.raises(PackCorrupt, match=file_name):
        open_pack(pack_dir)


def test_yaml_that_names_python_objects_is_refused(pack_dir: Path) -> None:
    (pack_dir / "config.yaml").write_text("model: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(PackCorrupt, match=r"config\.yaml"):
        open_pack(pack_dir)


def test_config_without_model_class_is_refused(pack_dir: Path) -> None:
    _edit_config(pack_dir, model=None)
    with pytest.raises(PackCorrupt, match="model"):
        open_pack(pack_dir)


def test_vocabulary_with_an_entry_twice_is_refused(pack_dir: Path) -> None:
    _edit_tokens(pack_dir, lambda tokens: tokens.append("一"))
    with pytest.raises(PackCorrupt, match="一"):
        open_pack(pack_dir)


def test_vocabulary_without_unknown_is_refused(pack_dir: Path) -> None:
    _edit_tokens(pack_dir, lambda tokens: tokens.remove("<unk>"))
    with pytest.raises(PackCorrupt, match="<unk>"):
        open_pack(pack_dir)


def test_vocabulary_in_another_order_is_refused(pack_dir: Path) -> None:
    _edit_tokens(pack_dir, lambda tokens: tokens.reverse())
    with pytest.raises(PackCorrupt, match="begin with <blank>"):
        open_pack(pack_dir)


def test_statistics_of_another_width_are_refused(pack_dir: Path) -> None:
    write_cmvn(pack_dir / "am.mvn", 400)
    with pytest.raises(PackCorrupt, match=r"400 dimensions.*560"):
        open_pack(pack_dir)


def test_detector_pack_needs_no_vocabulary(pack_dir: Path) -> None:
    for name in ("tokens.json", "configuration.json"):
        (pack_dir / name).unlink()
    write_cmvn(pack_dir / "am.mvn", 400)
    config = {
        "model": "FsmnVADStreaming",
        "frontend": "WavFrontendOnline",
        "frontend_conf": {"lfr_m": 5, "n_mels": 80},
    }
    (pack_dir / "config.yaml").write_text(yaml.safe_dump(config))
    pack = open_pack(pack_dir)
    assert pack.tokens == ()
    assert pack.cmvn is not None
    assert pack.cmvn.shape == (2, 400)


def test_weights_fill_a_module_on_the_meta_device(pack_dir: Path) -> None:
    net = _fresh_net(pack_dir)
    load_into(net, open_pack(pack_dir))
    stored = load_weights(open_pack(pack_dir))
    assert all(torch.equal(value, stored[key]) for key, value in net.state_dict().items())


def test_half_precision_weights_become_float32(pack_dir: Path) -> None:
    def halve(state: dict[str, torch.Tensor]) -> None:
        state.update({key: value.half() for key, value in state.items()})

    _edit_weights(pack_dir, halve)
    net = _fresh_net(pack_dir)
    load_into(net, open_pack(pack_dir))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_data_parallel_prefix_is_taken_off(pack_dir: Path) -> None:
    def prefix(state: dict[str, torch.Tensor]) -> None:
        for key in list(state):
            state["module." + key] = state.pop(key)

    _edit_weights(pack_dir, prefix)
    load_into(_fresh_net(pack_dir), open_pack(pack_dir))


def test_missing_parameter_is_named(pack_dir: Path) -> None:
    _edit_weights(pack_dir, lambda state: state.__delitem__("predictor.cif_output.bias"))
    with pytest.raises(PackIncomplete, match=r"predictor\.cif_output\.bias"):
        load_into(_fresh_net(pack_dir), open_pack(pack_dir))


def test_vocabulary_of_another_length_than_the_checkpoint_is_refused(pack_dir: Path) -> None:
    _edit_tokens(pack_dir, lambda tokens: tokens.append("零"))
    with pytest.raises(PackCorrupt, match=r"output_layer.*\(20,.*\(21,"):
        load_into(_fresh_net(pack_dir), open_pack(pack_dir))


def test_leftover_parameter_is_refused_unless_its_prefix_is_listed(pack_dir: Path) -> None:
    _edit_weights(pack_dir, lambda state: state.update({"ctc.weight": torch.zeros(1)}))
    with pytest.raises(PackCorrupt, match=r"ctc\.weight"):
        load_into(_fresh_net(pack_dir), open_pack(pack_dir))
    load_into(_fresh_net(pack_dir), open_pack(pack_dir), ignore_prefixes=("ctc.",))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", bytes(4096)])
def test_file_that_is_not_a_checkpoint_is_refused(pack_dir: Path, content: bytes) -> None:
    (pack_dir / "model.pt").write_bytes(content)
    with pytest.raises(PackCorrupt, match=r"model\.pt"):
        load_weights(open_pack(pack_dir))


class _Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 1",)


def test_pickled_code_is_refused(pack_dir: Path) -> None:
    torch.save({"state_dict": _Hostile()}, pack_dir / "model.pt")
    with pytest.raises(PackError, match="not a readable checkpoint"):
        load_weights(open_pack(pack_dir))
