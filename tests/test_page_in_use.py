"""The page in a real browser, as hands, eyes and screen readers use it."""

import json
import re

import numpy as np
import pytest
from helpers.browser import (
    answer,
    look,
    settle,
    text_of,
    trace,
    visit,
    wait_for,
)
from helpers.page import running
from numpy.testing import assert_allclose
from PIL import Image

from handwritten_classifier import HandwrittenNumberClassification


@pytest.fixture(scope="module")
def server(model_path, digits):
    """Serve a network that reads simple digits, and one that has learned nothing."""
    model = HandwrittenNumberClassification.load(model_path)
    models = {"trained": model, "new": HandwrittenNumberClassification()}
    with running(models, digits.test_images, digits.test_labels) as (server, address):
        yield server, address


@pytest.fixture
def screen(browser):
    """Return the browser with a screen of 1280 pixels, to open a link in."""
    look(browser, 1280)
    return browser


@pytest.fixture
def page(screen, server):
    """Return the browser with the page anew, on a screen of 1280 pixels."""
    return visit(screen, server)


def link_of(browser):
    return browser.execute_script("return location.hash")


ONE = [(0, -90), (0, -30), (0, 30), (0, 90)]


class TestPaper:
    def test_a_1_and_a_0_are_read(self, page):
        assert answer(page) == "draw a digit"
        assert not page.find_element("id", "pipeline").is_displayed()
        trace(page, ONE)
        wait_for(page, lambda text: text.startswith("1 ("))
        assert page.find_element("id", "pipeline").is_displayed()
        page.find_element("id", "clear").click()
        wait_for(page, lambda text: text == "draw a digit")
        around = np.linspace(0, 2 * np.pi, 25)
        trace(page, [(int(55 * np.sin(a)), int(-85 * np.cos(a))) for a in around])
        wait_for(page, lambda text: text.startswith("0 ("))
        bar = page.find_element("css selector", ".fill")
        assert bar.size["width"] > 0.5 * bar.find_element("xpath", "..").size["width"]

    def test_the_end_of_a_stroke_waits_for_no_reading_and_is_shown_last(self, page):
        page.execute_script(
            """
            const ask = window.fetch;
            let first = true;
            window.fetch = async (...request) => {
              const late = first && /^read/.test(request[0]);
              if (late) first = false;
              const answer = await ask(...request);
              if (late) await new Promise((done) => { window.come = done; });
              return answer;
            };
            """
        )
        trace(page, ONE)
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(page, 20, 0.05).until(lambda _: answer(page).startswith("1 ("))
        page.execute_script("come()")
        wait_for(page, lambda text: text.startswith("1 ("))

    def test_the_keyboard_draws_too(self, page):
        from selenium.webdriver.common.keys import Keys

        paper = page.find_element("id", "paper")
        paper.send_keys(" " + 16 * Keys.ARROW_DOWN + " ")
        wait_for(page, lambda text: text.startswith("1 ("))

    def test_a_finger_draws_too(self, page):
        look(page, 360, touch=True)
        paper = page.find_element("id", "paper").rect
        x, y = (
            paper["x"] + paper["width"] / 2,
            paper["y"] - page.execute_script("return scrollY"),
        )
        for kind, at in [("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8)]:
            points = [{"x": x, "y": y + at * paper["height"]}]
            touch = {"type": kind, "touchPoints": points}
            page.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
        touch = {"type": "touchEnd", "touchPoints": []}
        page.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
        wait_for(page, lambda text: text.startswith("1 ("))

    def test_every_change_can_be_undone_and_done_again(self, page):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        def press(*keys):
            actions = ActionChains(page)
            for key in keys[:-1]:
                actions.key_down(key)
            actions.send_keys(keys[-1])
            for key in keys[:-1]:
                actions.key_up(key)
            actions.perform()

        trace(page, ONE)
        wait_for(page, lambda text: text.startswith("1 ("))
        page.find_element("id", "clear").click()
        wait_for(page, lambda text: text == "draw a digit")
        press(Keys.CONTROL, "z")
        wait_for(page, lambda text: text.startswith("1 ("))
        press(Keys.CONTROL, "z")
        wait_for(page, lambda text: text == "draw a digit")
        assert not page.find_element("id", "undo").is_enabled()
        press(Keys.CONTROL, Keys.SHIFT, "z")
        wait_for(page, lambda text: text.startswith("1 ("))
        page.find_element("id", "redo").click()
        wait_for(page, lambda text: text == "draw a digit")
        assert not page.find_element("id", "redo").is_enabled()

    def test_the_pen_has_a_width(self, page):
        ink = (
            "const {data} = document.getElementById('paper').getContext('2d')"
            ".getImageData(0, 0, 280, 280);"
            "return data.filter((level, at) => at % 4 === 0 && level < 128).length"
        )
        counts = []
        for width in (10, 30):
            page.execute_script(f"document.getElementById('width').value = {width}")
            trace(page, ONE)
            settle(page)
            counts.append(page.execute_script(ink))
            page.find_element("id", "clear").click()
        assert 2 < counts[1] / counts[0] < 4

    def test_two_digits_are_told_apart_and_one_is_chosen(self, page):
        trace(page, [(-70, -70), (-70, 0), (-70, 70)])
        wait_for(page, lambda text: text.startswith("1"))
        trace(page, [(70, -70), (70, 0), (70, 70)])
        wait_for(page, lambda text: text.startswith("1 1"))
        boxes = page.find_elements("css selector", "#boxes div")
        paper = page.find_element("id", "paper").rect
        middles = [box.rect["x"] + box.rect["width"] / 2 - paper["x"] for box in boxes]
        assert_allclose(middles, [71, 211], atol=4)
        buttons = page.find_elements("css selector", "#digits button")
        assert [b.get_attribute("aria-pressed") for b in buttons] == ["true", "false"]
        buttons[1].click()
        chosen = "#digits button:nth-child(2)[aria-pressed=true]"
        wait_for(page, lambda _: page.find_elements("css selector", chosen))

    def test_a_photograph_is_read_and_stays_as_sharp_when_a_stroke_is_undone(
        self, page, tmp_path, digits
    ):
        picture = 255 - np.hstack(
            [
                image.repeat(9, 0)
                for image in [digits.test_images[n].repeat(9, 1) for n in (1, 4)]
            ]
        )
        exif = Image.Exif()
        exif[0x0112] = 6  # as a phone says: turn me by 90 degrees
        turned = Image.fromarray(picture).rotate(90, expand=True)
        turned.convert("RGB").save(tmp_path / "photograph.jpg", exif=exif)
        page.find_element("id", "file").send_keys(str(tmp_path / "photograph.jpg"))
        stages = "#found img"
        wait_for(page, lambda _: len(page.find_elements("css selector", stages)) == 4)
        boxes = page.find_elements("css selector", "#boxes div")
        paper = page.find_element("id", "paper").rect
        assert len(boxes) == 2
        assert boxes[0].rect["x"] < paper["x"] + 140 < boxes[1].rect["x"]
        assert abs(boxes[0].rect["y"] - paper["y"] - 90) < 30
        link = link_of(page)
        trace(page, [(-130, 120), (-100, 120)])
        wait_for(page, lambda _: not page.find_elements("css selector", stages))
        assert link_of(page) != link
        page.find_element("id", "undo").click()
        wait_for(page, lambda _: len(page.find_elements("css selector", stages)) == 4)
        assert link_of(page) == link

    def test_no_ink_is_another_message_than_an_empty_paper(self, page, tmp_path):
        shade = 255 - np.linspace(0, 60, 280).astype(np.uint8)
        Image.fromarray(np.tile(shade, (280, 1))).save(tmp_path / "blank.png")
        page.find_element("id", "file").send_keys(str(tmp_path / "blank.png"))
        wait_for(page, lambda text: text == "no ink found")

    def test_the_browser_complains_of_nothing(self, page, server):
        page.get_log("browser")  # begins anew
        visit(page, server)
        trace(page, ONE)
        wait_for(page, lambda text: text.startswith("1 ("))
        page.find_element("id", "back").click()
        settle(page)
        assert page.get_log("browser") == []


class TestPointing:
    @pytest.fixture
    def shown(self, screen, server):
        return visit(screen, server, "#image=t5")

    def row(self, page, text):
        """Return the canvas of the row whose caption begins so."""
        figures = page.find_elements("css selector", "#network figure")
        return next(
            f.find_element("css selector", "canvas")
            for f in figures
            if f.text.startswith(text)
        )

    def test_what_the_mouse_points_at_is_shown_and_a_click_keeps_it(self, shown):
        from selenium.webdriver import ActionChains

        maps = self.row(shown, "12C4: convolution")
        shown.execute_script("arguments[0].scrollIntoView()", maps)
        ActionChains(shown).move_to_element_with_offset(
            maps, 10 - maps.size["width"] // 2, 10 - maps.size["height"] // 2
        ).perform()
        wait_for(
            shown, lambda _: text_of(shown, "panel-title").startswith("12C4, map 0")
        )
        title = text_of(shown, "panel-title")
        assert len(shown.find_elements("css selector", "#sum tbody tr")) == 16
        assert "at=" not in link_of(shown)
        ActionChains(shown).click().perform()
        assert "at=step.1" in link_of(shown)
        ActionChains(shown).move_to_element(
            shown.find_element("id", "answer")
        ).perform()
        assert text_of(shown, "panel-title") == title

    def test_sources_are_marked_where_they_stand(self, screen, server):
        visit(screen, server, "#image=t5&at=step.1:0")
        marked = """
            const figures = [...document.querySelectorAll('#network figure')];
            const over = figures.find((f) => f.textContent.startsWith(arguments[0]))
              .querySelector('.over');
            const {data, width} = over.getContext('2d')
              .getImageData(0, 0, over.width, over.height);
            let [right, bottom] = [0, 0];
            data.forEach((value, at) => {
              if (at % 4 !== 3 || !value) return;
              const pixel = (at - 3) / 4;
              right = Math.max(right, pixel % width);
              bottom = Math.max(bottom, Math.floor(pixel / width));
            });
            return [right, bottom];
        """
        scale = self.row(screen, "image").size["width"] / 28
        assert_allclose(screen.execute_script(marked, "image"), 4 * scale, atol=2)
        assert screen.execute_script(marked, "probabilities") == [0, 0]
        lines = screen.find_elements("css selector", "#network svg line")
        assert len(lines) == 4  # two to the window, two to the kernel

    def test_the_keyboard_walks_in_a_map_to_other_maps_rows_and_sources(self, shown):
        from selenium.webdriver.common.keys import Keys

        maps = self.row(shown, "12C4: convolution")
        maps.send_keys("")
        assert text_of(shown, "panel-title") == "12C4, map 0, row 0, column 0"
        maps.send_keys(2 * Keys.ARROW_DOWN + Keys.ARROW_RIGHT + Keys.PAGE_DOWN)
        assert text_of(shown, "panel-title") == "12C4, map 1, row 2, column 1"
        assert text_of(shown, "live").startswith("12C4, map 1, row 2, column 1: ")
        maps.send_keys("]")
        pooled = shown.switch_to.active_element
        assert pooled.get_attribute("aria-label").startswith("MP3: max pooling")
        pooled.send_keys(Keys.BACKSPACE)
        assert re.match(
            "12C4, map 0, row [0-2], column [0-2]", text_of(shown, "panel-title")
        )
        shown.switch_to.active_element.send_keys(Keys.BACKSPACE)
        assert text_of(shown, "panel-title").startswith("image, row ")
        shown.switch_to.active_element.send_keys("b")
        settle(shown)
        assert shown.find_element("id", "back").get_attribute("aria-pressed") == "true"
        assert text_of(shown, "panel-title").startswith("derivative by image, row ")

    def test_a_finger_taps_a_number_and_buttons_move_it(self, screen, server):
        look(screen, 360, 700, touch=True)
        visit(screen, server, "#image=t5")
        maps = self.row(screen, "12C4: convolution")
        screen.execute_script("arguments[0].scrollIntoView()", maps)
        at = screen.execute_script(
            "const {x, y} = arguments[0].getBoundingClientRect(); return [x, y]", maps
        )
        for kind, points in [
            ("touchStart", [{"x": at[0] + 5, "y": at[1] + 5}]),
            ("touchEnd", []),
        ]:
            touch = {"type": kind, "touchPoints": points}
            screen.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
        found = re.match(
            r"12C4, map 0, row (\d), column (\d)", text_of(screen, "panel-title")
        )
        for key in ("ArrowDown", "ArrowRight", "PageDown"):
            screen.find_element("css selector", f"#pad [data-key={key}]").click()
        row, column = (int(place) + 1 for place in found.groups())
        expected = f"12C4, map 1, row {row}, column {column}"
        assert text_of(screen, "panel-title") == expected

    def test_a_group_of_terms_is_opened(self, screen, server):
        visit(screen, server, "#image=t5&at=step.4:0")
        rows = "#sum tbody tr.term, #sum tbody tr:not(.group)"
        assert len(screen.find_elements("css selector", "#sum tr.group")) == 12
        closed = screen.find_element(
            "css selector", "button.group[aria-expanded=false]"
        )
        channel = closed.text
        closed.click()
        opened = screen.find_element("css selector", "button.group[aria-expanded=true]")
        assert opened.text[2:] == channel[2:]
        assert len(screen.find_elements("css selector", rows)) == 16


class TestChanges:
    def test_a_gradient_is_checked_by_nudging(self, screen, server):
        visit(screen, server, "#image=t5&label=3&mode=back&at=d.W_dense:33")
        screen.find_element("id", "check").click()
        wait_for(screen, lambda _: "They agree." in text_of(screen, "checked"))

    def test_a_step_is_taken_and_undone_and_the_loss_falls_as_measured(
        self, screen, server
    ):
        visit(screen, server, "#image=t5&label=3&mode=back&lr=0.0001")
        drop = text_of(screen, "drop")
        loss, after = re.findall(r"the loss is ([\d.]+)\b|to ([\d.e-]+)\.$", drop)
        screen.find_element("css selector", "#step button").click()
        settle(screen)
        assert f"the loss is {after[1]}." in text_of(screen, "drop")
        assert "1 change since training" in text_of(screen, "changes")
        screen.find_element("id", "undo-change").click()
        settle(screen)
        assert text_of(screen, "drop") == drop
        screen.find_element("id", "redo-change").click()
        settle(screen)
        assert f"the loss is {after[1]}." in text_of(screen, "drop")
        assert float(after[1]) < float(loss[0])

    def test_an_edited_weight_changes_the_answer_until_it_is_undone(
        self, screen, server
    ):
        visit(screen, server, "#image=t5&at=B_dense:3")
        before = answer(screen)
        field = screen.find_element("id", "edit-value")
        field.clear()
        field.send_keys("100\n")
        wait_for(screen, lambda text: text.startswith("3 (100"))
        screen.find_element("id", "undo-all").click()
        wait_for(screen, lambda text: text == before)

    def test_what_is_no_number_is_refused_in_words(self, screen, server):
        visit(screen, server, "#image=t5&at=B_dense:3")
        field = screen.find_element("id", "edit-value")
        field.clear()
        field.send_keys("many\n")
        assert text_of(screen, "checked") == 'a number is required; got "many"'

    def test_changes_that_diverge_are_told_and_can_be_undone(self, screen, server):
        changes = json.dumps(20 * [["step", "t5", 3, 1000, 0.9, 1]])
        visit(screen, server, f"#image=t5&changes={changes}")
        told = screen.find_element("id", "warning").text
        assert re.search("lr must be small enough|must keep numbers finite", told)
        screen.find_element("id", "undo-all").click()
        wait_for(screen, lambda text: "truly" in text)
        assert text_of(screen, "warning") == ""


class TestLinks:
    def test_a_link_shows_the_same_numbers_in_another_window(self, page, server):
        trace(page, ONE)
        wait_for(page, lambda text: text.startswith("1 ("))
        page.find_element("id", "back").click()
        settle(page)
        row = page.find_element("css selector", "#network figure canvas")
        row.send_keys("\ue015\ue014")  # down, right
        page.find_element("css selector", "#step button").click()
        settle(page)
        shown = text_of(page, "sum"), text_of(page, "panel-title"), answer(page)
        address = page.current_url
        page.get("about:blank")
        page.get(address)
        settle(page)
        again = text_of(page, "sum"), text_of(page, "panel-title"), answer(page)
        assert again == shown
        assert page.current_url == address

    @pytest.mark.parametrize(
        ("link", "told"),
        [
            ("net=00000000&image=t5", "another network"),
            ("image=t99999", "image must be t0..t"),
            ("image=x", "image in the link cannot be read"),
            ("image=p!!", "image in the link cannot be read"),
            ("image=pAAAA", "image must be an image code"),
            ("image=t5&at=step.1:99999999", "is not in this network"),
            ("image=t5&at=step.77:0", "is not in this network"),
            ("image=t5&label=12&mode=back", "label must be in 0..9"),
            ("image=t5&changes=[[1]]", "changes in the link cannot be read"),
            ('image=t5&changes=[["edit","W",0,1]]', "a parameter must be among"),
            ("image=t5&lr=-1&mode=back", "lr in the link cannot be read"),
            ("image=t5&lr=5000&mode=back", "lr in the link cannot be read"),
            ("image=t5&without=all", "without in the link cannot be read"),
        ],
    )
    def test_a_bad_link_is_told_in_words_and_the_page_goes_on(
        self, screen, server, link, told
    ):
        visit(screen, server, f"#{link}")
        wait_for(screen, lambda _: told in screen.find_element("id", "warning").text)
        visit(screen, server, "#image=t5")
        assert text_of(screen, "warning") == ""

    def test_a_link_leaves_parts_out_and_hides_answers(self, screen, server):
        visit(screen, server, "#image=t5")
        screen.find_element("css selector", "#lesson-part summary").click()
        screen.find_element("id", "part-mistakes-part").click()
        screen.find_element("id", "quiz").click()
        link = link_of(screen)
        visit(screen, server, link)
        assert not screen.find_element("id", "mistakes-part").is_displayed()
        assert screen.find_element("id", "answer-part").is_displayed()
        assert screen.find_element("id", "quiz").is_selected()


class TestImages:
    def test_a_test_image_is_shown_with_its_label(self, page, digits):
        field = page.find_element("id", "test")
        field.send_keys("5\n")
        wait_for(page, lambda text: text.endswith(f"truly {digits.test_labels[5]}"))
        page.find_element("id", "next").click()
        wait_for(page, lambda text: text.endswith(f"truly {digits.test_labels[6]}"))
        assert "image=t6" in link_of(page)
        page.find_element("id", "example").click()
        wait_for(page, lambda text: re.match(r"\d\?? \(.*truly \d", text))

    def test_mistakes_are_listed_the_most_confident_first(self, page, server, digits):
        model = server[0].frames.models[0]
        probabilities = model.predict_proba(digits.test_images)
        wrong = probabilities.argmax(1) != digits.test_labels
        page.find_element("css selector", "#mistakes-part summary").click()
        wait_for(page, lambda _: page.find_elements("css selector", ".mistake"))
        cards = page.find_elements("css selector", ".mistake")
        assert len(cards) == wrong.sum()
        surest = np.where(wrong, probabilities.max(1), 0).argmax()
        assert f"test image {surest}:" in cards[0].get_attribute("aria-label")
        cards[0].click()
        wait_for(page, lambda text: f"truly {digits.test_labels[surest]}" in text)
        assert f"image=t{surest}" in link_of(page)

    def test_two_models_read_the_same_drawing_side_by_side(self, page):
        from selenium.webdriver.support.ui import Select

        trace(page, ONE)
        wait_for(page, lambda text: text.startswith("1 ("))
        Select(page.find_element("id", "beside")).select_by_visible_text("new")
        wait_for(
            page,
            lambda _: text_of(page, "beside-answer").startswith(
                "lower bars: new reads "
            ),
        )
        others = page.find_elements("css selector", ".fill.other")
        assert sum(bar.size["width"] > 0 for bar in others) > 3
        Select(page.find_element("id", "model")).select_by_visible_text("new")
        wait_for(page, lambda text: not text.startswith("1 ("))
        assert text_of(page, "about").startswith("new: 8C4-MP4-10N")


class TestEyes:
    @pytest.mark.parametrize("width", [320, 360])
    def test_it_fits_a_phone_with_the_answer_next_to_the_paper(
        self, screen, server, width
    ):
        look(screen, width, 700, touch=True)
        for mode in ("forward", "back"):
            visit(screen, server, f"#image=t5&label=3&mode={mode}&at=step.4:9")
            wide = screen.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width
        paper, text = (
            screen.find_element("id", name).rect for name in ("paper", "answer")
        )
        assert text["y"] < paper["y"] + paper["height"]
        assert text["x"] >= paper["x"] + paper["width"]
        assert text["x"] + text["width"] <= width

    def test_what_a_finger_touches_is_large_enough(self, screen, server):
        look(screen, 360, 700, touch=True)
        visit(screen, server, "#image=t5&label=3&mode=back&at=d.kernels.1:9")
        for summary in screen.find_elements("css selector", "summary"):
            screen.execute_script("arguments[0].click()", summary)
        small = screen.execute_script(
            """
            const size = (one) => (one.closest('label') || one).getBoundingClientRect();
            return [...document.querySelectorAll('button, select, input, summary')]
              .filter((one) => one.checkVisibility())
              .filter((one) => size(one).height < 44 || size(one).width < 44)
              .map((one) => one.id || one.textContent)
            """
        )
        assert small == []

    @pytest.mark.parametrize("dark", [False, True])
    @pytest.mark.parametrize(("width", "touch"), [(1280, False), (360, True)])
    def test_axe_finds_no_fault(self, screen, server, dark, width, touch):
        from axe_core_python.selenium import Axe

        look(screen, width, touch=touch, dark=dark)
        for link in (
            "",
            "#image=t5&at=step.4:9",
            "#image=t5&mode=back&at=d.kernels.1:9",
        ):
            visit(screen, server, link)
            found = Axe().run(screen)["violations"]
            faults = [(fault["id"], fault["nodes"][0]["html"]) for fault in found]
            assert faults == [], json.dumps(faults, indent=1)

    def test_dark_colours_are_dark(self, screen, server):
        look(screen, 1280, dark=True)
        visit(screen, server, "#image=t5")
        corner = screen.execute_script(
            "const map = document.querySelector('#network canvas');"
            "return [...map.getContext('2d').getImageData(1, 1, 1, 1).data]"
        )
        assert max(corner[:3]) < 40

    def test_nothing_moves_by_itself(self, page):
        moving = page.execute_script(
            "return [...document.querySelectorAll('*')].map((e) => getComputedStyle(e))"
            ".filter((style) => style.transitionDuration !== '0s'"
            " || style.animationName !== 'none').length"
        )
        assert moving == 0
