"""A recipe is the same in this class and in PyTorch; its times are not tested."""

import numpy as np
import pytest
import recipe

from digits.mnist import DIGITS
from handwritten_classifier import HandwrittenNumberClassification

DATA = str(DIGITS)
SETTINGS = {"architecture": "4C3-MP4-10N", "epochs": 6, "batch_size": 16, "lr": 0.1}
SETTINGS |= {"momentum": 0.9, "seed": 3}


@pytest.fixture
def torch():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    return recipe.TorchRecipe(DATA)


def test_ours_is_trained_and_tested_as_the_recipe_says():
    ours = recipe.NumpyRecipe(DATA)
    ours.build(SETTINGS)
    ours.fit()
    assert len(ours.model.history["loss"]) == SETTINGS["epochs"]
    assert ours.test() == ours.model.score(*ours.unseen) > 0.2
    training, unseen = recipe.read_images(DATA)
    assert len(training[0]) + len(unseen[0]) < 1797  # the rest is held out
    model = HandwrittenNumberClassification(**SETTINGS).fit(*training, verbose=0)
    assert model.history["loss"] == ours.model.history["loss"]


def test_pytorch_takes_the_rates_that_the_class_takes(torch):
    torch.build(SETTINGS | {"schedule": "one-cycle"})
    rates = []
    torch.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    torch.fit()
    model = HandwrittenNumberClassification(**SETTINGS | {"schedule": "one-cycle"})
    steps = range(1, len(rates) + 1)
    expected = [model._plan_step(step, len(rates))[0] for step in steps]
    np.testing.assert_allclose(rates, expected, atol=0.1 / len(rates) / 0.3)
    assert torch.test() > 0.2


def test_the_last_line_is_the_ratio_of_the_medians(monkeypatch, capsys):
    turns = {"PyTorch": [(4.0, 0.5), (2.0, 0.6)], "NumPy": [(1.0, 0.7), (2.0, 0.8)]}
    monkeypatch.setattr(recipe, "compare", lambda *_: turns)
    monkeypatch.setattr(recipe.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr("sys.argv", ["recipe.py"])
    recipe.main()
    assert capsys.readouterr().out.splitlines() == [
        "NumPy   1.5 s, 75.00 ± 7.07 %",
        "PyTorch 3.0 s, 55.00 ± 7.07 %",
        "NumPy to PyTorch: 0.50",
    ]


@pytest.mark.parametrize(
    ("flag", "words"),
    [(["--seeds", "0"], "at least 1; got 0"), (["best"], "invalid choice: 'best'")],
)
def test_what_it_cannot_do_is_said(monkeypatch, capsys, flag, words):
    monkeypatch.setattr("sys.argv", ["recipe.py", *flag])
    with pytest.raises(SystemExit):
        recipe.main()
    assert words in capsys.readouterr().err
