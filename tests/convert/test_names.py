"""The spellings of files."""

import gzip
import json

import pytest

from convert import names


@pytest.mark.parametrize(
    ("wanted", "in_file"),
    [
        ("mid_block.attentions.0.to_q.weight", "mid_block.attentions.0.query.weight"),
        ("mid_block.attentions.0.to_k.bias", "mid_block.attentions.0.key.bias"),
        ("mid_block.attentions.0.to_v.weight", "mid_block.attentions.0.value.weight"),
        ("mid_block.attentions.0.to_out.0.bias", "mid_block.attentions.0.proj_attn.bias"),
        ("text_model.final_layer_norm.weight", "final_layer_norm.weight"),
        ("final_layer_norm.weight", "text_model.final_layer_norm.weight"),
        ("text_projection.weight", "text_projection.weight"),
    ],
)
def test_spellings(wanted, in_file):
    assert names.find(wanted, {in_file}) == in_file
    assert names.find(wanted, {in_file, wanted}) == wanted, "today's spelling goes first"
    assert names.find(wanted, {"another.weight"}) is None


def test_buffers():
    assert names.is_buffer("text_model.embeddings.position_ids")
    assert names.is_buffer("norm.num_batches_tracked")
    assert not names.is_buffer("position_ids.weight")
    assert names.is_spare("lm_head.weight", ())
    assert names.is_spare("encoder.embed_tokens.weight", ("shared.weight",))
    assert not names.is_spare("encoder.embed_tokens.weight", ("other.weight",))


def test_hub_files_of_clip(shared_data):
    """The names that transformers 5 gives its modules, and those in files with the prefix, find each other."""
    with gzip.open(shared_data / "manifests" / "sd15-text-encoder.json.gz") as file:
        wanted = [name.removeprefix("text_model.") for name in json.load(file)["tensors"]]
    files = {f"text_model.{name}" for name in wanted}
    assert {names.find(name, files) for name in wanted} == files
    assert {names.find(name, wanted) for name in files} == set(wanted)
