"""What is asked for, in words: slices, percentiles, shares."""

import pytest

from oasisvq.data.recipe import Recipe, parse_percentiles, parse_slices, parse_split, recipe_from_dict
from oasisvq.errors import DatasetError


@pytest.mark.parametrize("text", ["32", "60:130", "all", "1"])
def test_slices_in_words_and_back(text: str) -> None:
    assert str(parse_slices(text)) == text


@pytest.mark.parametrize("text", ["0", "-1", "", "a", "5:5", "9:3", "1:2:3", "-3:4", "1.5", "every"])
def test_slices_that_are_none(text: str) -> None:
    with pytest.raises(DatasetError, match=r"expected a count .32., a range .* or all"):
        parse_slices(text)


@pytest.mark.parametrize("text", ["", "5", "99:1", "-1:50", "0:101", "a:b", "nan:nan", "5:5"])
def test_percentiles_that_are_none(text: str) -> None:
    with pytest.raises(DatasetError, match=r"two rising numbers like 0\.5:99\.5"):
        parse_percentiles(text)


@pytest.mark.parametrize("text", ["", "80", "80/20", "0/0/0", "a/b/c", "-1/1/1", "inf/1/1", "nan/1/1"])
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(DatasetError, match="expected shares of train, validation, test like 80/10/10"):
        parse_split(text)


def test_axes_that_are_none() -> None:
    with pytest.raises(DatasetError, match="axis 'oblique', expected axial, coronal, sagittal"):
        Recipe(axis="oblique")


def test_a_recipe_comes_back_also_from_before_there_were_axes() -> None:
    fields = Recipe(axis="coronal").as_dict()
    assert recipe_from_dict(fields) == Recipe(axis="coronal")
    del fields["axis"]
    assert recipe_from_dict(fields) == Recipe()
