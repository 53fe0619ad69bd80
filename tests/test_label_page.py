"""The page of thumbnails in a real browser: classes by mouse and by keys, and the CSV that it saves."""

import pytest
from browsing import WIDTHS, chromium, opened
from test_label import ODD, write_folder

from clipnlc.datasets.drawn import read_draw, read_rows
from clipnlc.stages.label import Guess, label

MANY = ("ant", "anteater", "bee", "cat", "cow", "dog", "eel", "fox", "gnu", "hen", "ibis", ODD)


def made(root, classes, count=6):
    photos = write_folder(root / "photos", count)
    out = root / "labels.csv"
    label(
        photos=photos,
        class_names=classes,
        count=count,
        out=out,
        guess=lambda files: [(file, Guess(classes[0], 0.75)) for file in files],
    )
    return out


def saved(page, out):
    """Save the CSV in place of the first, as the page says, and read it."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Save CSV").click()
    assert download.value.suggested_filename == out.name
    download.value.save_as(out)
    return read_rows(out)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_class_is_set_by_mouse_and_by_keys_and_saved(browser, tmp_path, width):
    out = made(tmp_path, ("cat", "dog", ODD))
    before = read_rows(out)
    with opened(browser, out.with_suffix(".html"), width=width) as page:
        cards = page.locator(".photo")
        assert cards.count() == 6
        assert page.locator("#progress").text_content() == "0 of 6 labelled"
        assert page.evaluate("[...document.images].every((one) => one.naturalWidth > 0)")
        cards.nth(0).get_by_role("button", name="dog").click()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("3")  # and on
        page.keyboard.press("Enter")  # takes the guess, and on
        page.keyboard.type("do")
        assert page.locator("#progress").text_content() == "4 of 6 labelled, not saved yet"
        page.keyboard.press("End")
        page.keyboard.press("1")
        page.keyboard.press("Backspace")
        after = saved(page, out)
        assert page.locator("#progress").text_content() == "4 of 6 labelled"
    assert [row.label for row in after] == ["dog", ODD, "cat", "dog", "", ""]
    assert [(row.file, row.guess, row.confidence) for row in after] == [
        (row.file, row.guess, row.confidence) for row in before
    ]
    assert read_draw(out) is not None


@pytest.mark.parametrize("width", WIDTHS)
def test_of_many_classes_one_is_picked_or_typed(browser, tmp_path, width):
    out = made(tmp_path, MANY)
    with opened(browser, out.with_suffix(".html"), width=width) as page:
        cards = page.locator(".photo")
        cards.nth(0).get_by_role("combobox").select_option(ODD)
        page.keyboard.press("ArrowRight")
        page.keyboard.type("co")
        page.keyboard.press("ArrowRight")
        page.keyboard.type("aa")  # the second with this letter
        cards.nth(3).get_by_role("button", name="ant").click()
        assert [row.label for row in saved(page, out)][:4] == [ODD, "cow", "anteater", "ant"]


def test_what_was_labelled_before_is_shown_and_kept(browser, tmp_path):
    out = made(tmp_path, ("cat", "dog"))
    with opened(browser, out.with_suffix(".html"), width=WIDTHS[0]) as page:
        page.locator(".photo").first.get_by_role("button", name="dog").click()
        saved(page, out)
    made_again = label(
        photos=tmp_path / "photos",
        class_names=("cat", "dog"),
        count=0,
        out=out,
        guess=lambda _: [],
    )
    with opened(browser, made_again.page, width=WIDTHS[1]) as page:
        assert page.locator("#progress").text_content() == "1 of 6 labelled"
        pressed = page.locator('[aria-pressed="true"]')
        assert pressed.count() == 1
        assert "dog" in pressed.text_content()


def test_where_a_browser_is_required_its_absence_is_no_skip(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setenv("CLIPNLC_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="install the package chromium"), chromium():
        pass
    monkeypatch.delenv("CLIPNLC_BROWSER")
    with pytest.raises(pytest.skip.Exception, match="there is no chromium"), chromium():
        pass
