"""How dreams are divided, before any is made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resprout.errors import RecipeError
from resprout.recipe import DeepInversionSection, ImagesSection, PaperSynthesisSection
from resprout.sharding import group_sizes, parse, shares
from resprout.synthesis.groups import plan


@given(count=st.integers(0, 300), group_size=st.integers(2, 40))
def test_groups_are_whole_and_none_is_a_single_image_beside_others(count: int, group_size: int):
    sizes = list(group_sizes(count, group_size))

    assert sum(sizes) == count
    assert all(size == group_size for size in sizes[:-1])
    assert count <= 1 or min(sizes) >= 2, "one image has no batch statistics"
    assert not sizes or max(sizes) <= group_size + 1


@given(
    num_images=st.integers(2, 99), num_held_out=st.integers(0, 99), group_size=st.integers(2, 40), wanted=st.integers()
)
def test_there_are_as_many_shards_as_synthesis_has_work_for(
    num_images: int, num_held_out: int, group_size: int, wanted: int
):
    section = DeepInversionSection(num_images=num_images, num_held_out=num_held_out, group_size=group_size)
    groups = len(plan(num_images, num_held_out, group_size))

    if 1 <= wanted <= groups:
        assert [parse(share) for share in shares(section, wanted)] == [(index, wanted) for index in range(wanted)]
        return
    with pytest.raises(RecipeError, match=f"cannot share {groups} groups of dreams") as refused:
        shares(section, wanted)
    assert f"use 1 to {groups} shards" in refused.value.now


def test_the_papers_groups_have_its_size():
    with pytest.raises(RecipeError, match="use 1 to 36 shards"):
        shares(PaperSynthesisSection(), 0)


@pytest.mark.parametrize("wanted", [1, 4])
def test_real_images_have_none_however_many_are_wanted(wanted: int):
    assert shares(ImagesSection(data="s3://bucket/train"), wanted) == []


def test_a_share_is_what_people_call_it():
    assert shares(DeepInversionSection(), 3) == ["1/3", "2/3", "3/3"]
