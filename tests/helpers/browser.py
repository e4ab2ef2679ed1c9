"""The page in Chromium: to open it, to draw on it, and to wait for its answers."""


def visit(browser, server, link=""):
    """Open the page and wait until it shows what it was opened with."""
    browser.get("about:blank")
    browser.get(f"http://{server[1]}/{link}")
    settle(browser)
    return browser


def look(browser, width, height=900, *, touch=False, dark=False):
    """Set the size of the screen, whether it is touched, and its colours."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def settle(browser):
    """Wait, in the page, until no reading is under way; to ask again takes longer."""
    browser.execute_async_script(
        """
        const [done] = arguments;
        const look = () => {
          const busy = document.getElementById('answer').getAttribute('aria-busy');
          if (document.readyState === 'complete' && busy === 'false') done();
          else setTimeout(look, 10);
        };
        look();
        """
    )


def answer(browser):
    return browser.find_element("id", "answer").text


def wait_for(browser, condition):
    """Wait until no reading is under way and something holds of the answer."""
    from selenium.webdriver.support.ui import WebDriverWait

    def holds(_):
        settle(browser)
        return condition(answer(browser))

    WebDriverWait(browser, 20, 0.05).until(holds)


def trace(browser, places):
    """Draw a line with the mouse through places, in pixels from the paper's middle."""
    from selenium.webdriver import ActionChains

    paper = browser.find_element("id", "paper")
    actions = ActionChains(browser, duration=20)
    actions.move_to_element_with_offset(paper, *places[0]).click_and_hold()
    for place in places[1:]:
        actions.move_to_element_with_offset(paper, *place)
    actions.release().perform()


def text_of(browser, element):
    return browser.execute_script(
        f"return document.getElementById('{element}').textContent"
    )
