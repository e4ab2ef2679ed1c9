"""Training on the page, in a real browser: steered, watched, gone back, and taught."""

import json
import re
import time

import numpy as np
import pytest
from helpers.browser import answer, look, settle, text_of, trace, visit, wait_for
from helpers.page import running

from digits.mnist import load_data, split_training
from handwritten_classifier import HandwrittenNumberClassification

SMALL = {"architecture": "4C5-MP4-10N", "lr": "0.05", "schedule": "constant"}
SEVEN = [(-60, -80), (-20, -85), (20, -80), (60, -78), (40, -40), (20, 0), (-5, 90)]


@pytest.fixture(scope="module")
def model(model_path):
    """Return a network that reads simple digits."""
    return HandwrittenNumberClassification.load(model_path)


@pytest.fixture
def server(model, digits, tmp_path):
    tests = digits.test_images, digits.test_labels
    own = tmp_path / "results" / "model.npz"
    split = split_training(digits)
    with running({"first": model}, *tests, split, own) as (server, address):
        yield server, address


@pytest.fixture
def page(browser, server):
    """Return the browser with the page anew, and what trains a network open."""
    look(browser, 1280, 1000)
    visit(browser, server)
    press(browser, "#training-part summary")
    return browser


def press(browser, selector):
    browser.execute_script(f"document.querySelector('{selector}').click()")


def fill(browser, letter="A", **values):
    """Set fields of a set-up, as somebody who types does."""
    for name, value in values.items():
        browser.execute_script(
            "const field = document.getElementById(arguments[0]);"
            "field.value = arguments[1];"
            "for (const kind of ['input', 'change'])"
            "  field.dispatchEvent(new Event(kind, {bubbles: true}))",
            f"{letter}-{name}",
            value,
        )


def choose(browser, element, value):
    browser.execute_script(
        "const field = document.getElementById(arguments[0]);"
        "field.value = arguments[1]; field.dispatchEvent(new Event('change'))",
        element,
        value,
    )


def until(browser, condition, seconds=20):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, 0.05).until(lambda _: condition())


def state(browser):
    return text_of(browser, "training-state")


def step_of(browser):
    found = re.search(r"step ([\d,]+)", state(browser))
    return int(found[1].replace(",", "")) if found else None


def halted_at(browser, server, step=None):
    """Wait until a training stands still, and the page shows how; return the step."""
    trainer = server[0].trainer

    def stands():
        now = trainer.describe()
        if not now["runs"]:
            return False
        seen, at = now["runs"][0]["last"], now["runs"][0]["step"]
        shown = f"after step {at:,}" in text_of(browser, "about")
        told = f"After step {at:,}" in text_of(browser, "grid-text")
        fresh = seen and seen["step"] == at and shown and told
        return not now["running"] and fresh and at == (at if step is None else step)

    until(browser, stands)
    settle(browser)
    return trainer.runs[0].progress.step


class TestSteering:
    def test_it_trains_halts_and_each_number_names_its_step(self, page, server):
        fill(page, **SMALL, epochs="100")
        press(page, "#train-run")
        until(page, lambda: (step_of(page) or 0) > 10)
        assert text_of(page, "train-run") == "Pause"
        press(page, "#train-run")
        step = halted_at(page, server)
        assert step_of(page) == step
        assert text_of(page, "train-run") == "Go on"
        assert f"{step:,} (" in text_of(page, "walk-step")
        caption = page.find_element("css selector", "#layers caption").text
        assert caption == f"After step {step:,}"
        snapshot = server[0].trainer.find(0, None)[0]
        about = text_of(page, "about")
        assert about.startswith(f"in training, after step {step:,}: 4C5-MP4-10N")
        read = server[0].trainer.runs[0].progress.last["read"]
        labels = np.repeat(np.arange(10), 10)
        right = f"{(np.array(read) == labels).sum()} of 100 test images are right"
        assert right in text_of(page, "grid-text")
        until(page, lambda: re.search(r"of all \d+ held-out images", state(page)))
        assert snapshot.step == step

    def test_steps_and_epochs_are_counted(self, page, server):
        fill(page, **SMALL, epochs="3", limit="320")
        press(page, "#train-step")
        assert halted_at(page, server, 1) == 1
        press(page, "#train-ten")
        assert halted_at(page, server, 11) == 11
        press(page, "#train-epoch")
        assert halted_at(page, server, 20) == 20
        press(page, "#train-run")
        assert halted_at(page, server, 30) == 30
        assert "finished" in state(page)
        press(page, "#train-anew")
        until(page, lambda: step_of(page) == 0)
        assert text_of(page, "train-run") == "Start"

    def test_a_rate_changes_on_the_way(self, page, server):
        fill(page, **SMALL, epochs="100")
        press(page, "#train-ten")
        halted_at(page, server, 10)
        fill(page, lr="0.002", momentum="0.5")
        network = server[0].trainer.runs[0].network
        until(page, lambda: (network.lr, network.momentum) == (0.002, 0.5))
        press(page, "#train-step")
        halted_at(page, server, 11)
        assert "rate 0.002" in state(page)
        fill(page, lr="-1")
        until(page, lambda: "Rate must be" in text_of(page, "trouble"))
        assert server[0].trainer.runs[0].network.lr == 0.002

    def test_what_cannot_be_trained_is_said_as_one_types(self, page):
        until(page, lambda: "36,330 parameters" in text_of(page, "plan"))
        assert "steps an epoch, about" in text_of(page, "plan")
        for text, words in (
            ("8C5", "end in a dense layer"),
            ("64C5-500N-10N", "at most 2,000,000 weights"),
            ("", "Layers must"),
            ("8C5-10N", "46,298 parameters"),
        ):
            fill(page, architecture=text)
            until(page, lambda words=words: words in text_of(page, "plan"))
            field = page.find_element("id", "A-architecture")
            wrong = field.get_attribute("aria-invalid")
            assert wrong == str("parameters" not in words).lower()
        for name in ("lr", "epochs", "stop_at"):
            usual = page.find_element("id", f"A-{name}").get_property("value")
            fill(page, **{name: "1e999"})
            until(page, lambda: re.search("^(Rate|Epochs|Halt at) must", plan(page)))
            fill(page, **{name: usual})
            until(page, lambda: "46,298 parameters" in plan(page))
        fill(page, epochs="many")
        until(page, lambda: "Epochs must be" in text_of(page, "plan"))
        press(page, "#train-run")
        until(page, lambda: "Epochs must be" in text_of(page, "trouble"))


def plan(browser):
    return text_of(browser, "plan")


class TestWatching:
    def test_a_refused_change_does_not_count(self, page, server):
        fill(page, **SMALL)
        press(page, "#train-step")
        halted_at(page, server, 1)
        page.execute_script("document.querySelectorAll('#network canvas')[2].focus()")
        for value, words in (("-1e38", "must be in"), ("0.5", "1 change of")):
            page.execute_script(
                "document.getElementById('edit-value').value = arguments[0];"
                "document.querySelector('#edit button').click()",
                value,
            )
            place = "checked" if "must" in words else "changes"
            until(page, lambda p=place, w=words: w in text_of(page, p))
            settle(page)
        assert text_of(page, "changes").startswith("1 change of")
        assert text_of(page, "warning") == ""

    def test_a_link_to_a_model_is_opened_beside_a_training(self, page, server):
        visit(page, server, "#image=t5")
        link = page.execute_script("return location.hash")
        visit(page, server, link)
        press(page, "#training-part summary")
        fill(page, **SMALL)
        press(page, "#train-step")
        halted_at(page, server, 1)
        visit(page, server, link)
        until(page, lambda: step_of(page) == 1)
        settle(page)
        assert text_of(page, "about").startswith("first: 12C4-MP3-64C4-10N")
        choose(page, "model", "live")
        until(page, lambda: "in training" in text_of(page, "about"))

    def test_the_fields_show_what_is_in_training(self, page, server):
        fill(page, **SMALL, epochs="7", limit="320")
        press(page, "#race")
        fill(page, "B", lr="0.5")
        press(page, "#train-step")
        halted_at(page, server, 1)
        assert 'Press "Reset"' not in text_of(page, "plan")
        visit(page, server)
        until(page, lambda: step_of(page) == 1)
        assert text_of(page, "warning") == ""
        shown = {
            name: page.find_element("id", name).get_property("value")
            for name in ("A-architecture", "A-epochs", "A-limit", "A-lr", "B-lr")
        }
        assert list(shown.values()) == ["4C5-MP4-10N", "7", "320", "0.05", "0.5"]
        # Another page starts another; this one shows it.
        setup = SMALL | {"lr": 0.05, "epochs": 9}
        server[0].trainer.obey({"do": "start", "setups": [setup, setup]})
        field = page.find_element("id", "A-epochs")
        until(page, lambda: field.get_property("value") == "9")
        fill(page, "B", lr="0.2")  # It counts at once.
        until(page, lambda: server[0].trainer.runs[1].network.lr == 0.2)
        fill(page, batch_size="64")
        until(page, lambda: 'Press "Reset" to train this' in plan(page))

    def test_every_number_of_a_kept_step_can_be_pointed_at(self, page, server):
        fill(page, **SMALL)
        press(page, "#train-ten")
        halted_at(page, server, 10)
        page.execute_script(
            "const walk = document.getElementById('walk'); walk.value = 4;"
            "walk.dispatchEvent(new Event('input'))"
        )
        until(page, lambda: "after step 4:" in text_of(page, "about"))
        press(page, "#back")
        settle(page)
        page.execute_script("document.querySelectorAll('#network canvas')[2].focus()")
        assert "kernel" in text_of(page, "panel-title")
        press(page, "#check")
        until(page, lambda: "They agree" in text_of(page, "checked"))
        assert server[0].trainer.runs[0].progress.step == 10
        press(page, "#walk-go")
        assert halted_at(page, server, 4) == 4
        press(page, "#train-step")
        assert halted_at(page, server, 5) == 5

    def test_a_change_stays_at_the_step_that_it_was_made_at(self, page, server):
        fill(page, **SMALL, epochs="100")
        press(page, "#train-run")
        until(page, lambda: (step_of(page) or 0) > 10)
        page.execute_script("document.querySelectorAll('#network canvas')[2].focus()")
        page.execute_script(
            "const field = document.getElementById('edit-value');"
            "field.focus(); field.select()"
        )
        page.switch_to.active_element.send_keys("0.25")
        press(page, "#edit button")
        until(page, lambda: "1 change of" in text_of(page, "changes"))
        until(page, lambda: not server[0].trainer.is_running)
        settle(page)
        assert "1 change of" in text_of(page, "changes")
        step = re.search(r"after step ([\d,]+)", text_of(page, "about"))[1]
        assert text_of(page, "walk-step").startswith(f"{step} (")

    def test_it_goes_on_without_the_page_and_is_found_again(self, page, server):
        fill(page, **SMALL, epochs="200")
        press(page, "#train-run")
        until(page, lambda: (step_of(page) or 0) > 3)
        page.get("about:blank")
        before = server[0].trainer.step
        until(page, lambda: server[0].trainer.step > before + 10)
        visit(page, server)
        until(page, lambda: (step_of(page) or 0) > before)
        assert page.find_element("id", "watching").is_displayed()

    def test_two_set_ups_race_on_the_same_batches(self, page, server):
        fill(page, **SMALL)
        press(page, "#race")
        fill(page, "B", lr="0.5")
        press(page, "#train-ten")
        halted_at(page, server, 10)
        until(page, lambda: state(page).count("step 10,") == 2)
        assert re.search("A: step 10: loss .* B: step 10: loss", curves(page))
        choose(page, "watch", "1")
        settle(page)
        first, second = server[0].trainer.runs
        assert first.network.lr == 0.05
        assert second.network.lr == 0.5
        shown = frame_checksum(page)
        assert shown == checksum(second) != checksum(first)

    def test_a_test_image_of_the_grid_is_opened(self, page, server):
        fill(page, **SMALL)
        press(page, "#train-step")
        halted_at(page, server, 1)
        page.execute_script(
            "const grid = document.getElementById('grid');"
            "const {left, top} = grid.getBoundingClientRect();"
            "const at = {clientX: left + 46, clientY: top + 201};"
            "grid.dispatchEvent(new MouseEvent('click', at))"
        )
        looks = server[0].trainer.runs[0].progress.looks
        wanted = looks.shown[61]
        shown = page.find_element("id", "test").get_property
        until(page, lambda: shown("value") == str(wanted))
        settle(page)
        assert answer(page).endswith("truly 6")


def curves(browser):
    return text_of(browser, "curves-text")


def frame_checksum(browser):
    """Return the checksum of the network that is shown."""
    script = "return document.getElementById('about').dataset.checksum"
    return browser.execute_script(script)


def checksum(run):
    from digits.page.frames import checksum

    return checksum(run.network.parameters)


class TestLessons:
    @pytest.mark.parametrize(
        ("lesson", "words"),
        [
            ("a rate too high", "the rate is too high"),
            ("no ReLU alive", "all ReLUs of 16C5 are dead"),
            ("a network that only memorises", "it memorises"),
        ],
    )
    def test_each_goes_wrong_as_it_says_and_says_so(self, page, server, lesson, words):
        choose(page, "lesson", lesson)
        assert text_of(page, "lesson-text")
        for step in (10, 20, 30):
            press(page, "#train-ten")
            halted_at(page, server, step)
        until(page, lambda: words in text_of(page, "trouble"))

    def test_one_goes_back_and_on_with_another_rate(self, page, server):
        choose(page, "lesson", "no ReLU alive")
        for step in (10, 20, 30):
            press(page, "#train-ten")
            halted_at(page, server, step)
        until(page, lambda: page.find_element("id", "rescue-back").is_displayed())
        press(page, "#rescue-back")
        until(page, lambda: step_of(page) < 30)
        fill(page, lr="0.05")
        press(page, "#train-epoch")
        halted_at(page, server, server[0].trainer.runs[0].progress.in_epoch)
        assert text_of(page, "trouble") == ""


class TestOwn:
    def test_a_digit_is_kept_corrected_learned_and_used(self, page, server, digits):
        trace(page, SEVEN)
        wait_for(page, lambda text: text != "draw a digit")
        assert page.find_element("id", "teach-part").is_displayed()
        page.find_element("tag name", "body").send_keys("3")
        until(page, lambda: "Kept as a 3" in text_of(page, "taught"))
        press(page, "#teach button:nth-child(6)")  # It was a 5 after all.
        until(page, lambda: "Kept as a 5" in text_of(page, "taught"))
        assert server[0].own.read()[1].tolist() == [5]
        choose_first = "document.querySelector('#own select')"
        page.execute_script(
            f"const first = {choose_first}; first.value = 7;"
            "first.dispatchEvent(new Event('change'))"
        )
        until(page, lambda: server[0].own.read()[1].tolist() == [7])
        server[0].own.add(server[0].own.read()[0][0], 1)  # By another page.
        press(page, "#own figure button")
        until(page, lambda: "look at them again" in text_of(page, "learned"))
        press(page, "#own figure:nth-child(2) button")
        until(page, lambda: server[0].own.read()[1].tolist() == [7])
        assert server[0].own.read()[0].max() > 200
        press(page, "#learn")
        until(page, lambda: text_of(page, "learned").startswith("Learned."), 60)
        told = text_of(page, "learned")
        assert re.search(r"own 1: [\d.]+ % before, 100.00 % after", told), told
        assert f"of {len(digits.test_labels)} test images" in told
        wait_for(page, lambda text: text.startswith("7"))
        press(page, "#use-learned")
        until(page, lambda: server[0].own_model.exists())
        learned = HandwrittenNumberClassification.load(server[0].own_model)
        images, labels = server[0].own.read()
        assert learned.score(images, labels) == 1
        until(page, lambda: "Written" in text_of(page, "learned"))
        choice = page.find_elements("css selector", "#model option")
        assert "results/model.npz" in [option.text for option in choice]

    def test_a_test_image_is_not_offered(self, page, server):
        visit(page, server, "#image=t5")
        assert not page.find_element("id", "teach-part").is_displayed()
        page.find_element("tag name", "body").send_keys("3")
        time.sleep(0.2)
        assert len(server[0].own.read()[1]) == 0

    def test_a_damaged_file_is_said(self, page, server):
        server[0].own.path.parent.mkdir(exist_ok=True)
        server[0].own.path.write_bytes(b"PK no")
        visit(page, server)
        until(page, lambda: "own-digits.npz must hold" in text_of(page, "learned"))


class TestEyes:
    @pytest.mark.parametrize(("width", "dark"), [(320, False), (1280, True)])
    def test_it_fits_and_axe_finds_no_fault(self, page, server, width, dark):
        from axe_core_python.selenium import Axe

        fill(page, **SMALL)
        press(page, "#race")
        press(page, "#train-ten")
        halted_at(page, server, 10)
        press(page, "#training-part details summary")
        look(page, width, dark=dark)
        time.sleep(0.3)
        width_of = "return document.documentElement.scrollWidth"
        assert page.execute_script(width_of) <= width
        found = Axe().run(page)["violations"]
        faults = [(fault["id"], fault["nodes"][0]["html"]) for fault in found]
        assert faults == [], json.dumps(faults, indent=1)


def test_on_mnist_it_reaches_99_percent(browser, model, mnist_path, tmp_path):
    data = load_data(mnist_path)
    tests = data.test_images, data.test_labels
    split = split_training(data)
    own = tmp_path / "results" / "model.npz"
    look(browser, 1280, 1000)
    with running({"first": model}, *tests, split, own) as server:
        visit(browser, server)
        press(browser, "#training-part summary")
        fill(browser, epochs="1", averaging="0.3")
        press(browser, "#train-run")
        until(browser, lambda: "finished" in state(browser), 120)
        until(browser, lambda: "of all 10,000 held-out" in state(browser))
        whole = re.search(r"1,563 ([\d.]+) % of all 10,000", state(browser))
        assert float(whole[1]) >= 99
        network = server[0].trainer.runs[0].network
        assert network.score(*tests) >= 0.99
