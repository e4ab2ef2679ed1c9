"""A little of the loads that `load.py` puts the project under at full size."""

import load
import pytest

FINE = load.Result("server", 10, 9, 1, 40.0, 50.0, 51.0, 0, 1.0)


def test_the_server_answers_many_clients_at_once():
    result = load.load_server(160)  # malformed ones of all 16 kinds
    assert (result.right, result.refused) == (144, 16)
    assert result.met, result


def test_a_training_goes_on_beside_many_requests():
    result = load.load_training(200)
    assert result.right == 200
    assert result.met, result


def test_a_mapped_file_of_images_is_read_in_flat_memory():
    result = load.load_memmap(20_000)
    assert result.right == 20_000
    assert result.met, result


def test_models_that_are_thrown_away_leave_no_memory():
    result = load.load_models(30)
    assert result.right == 30
    assert result.met, result


def test_a_load_that_is_borne_is_as_it_must_be():
    assert FINE.met


@pytest.mark.parametrize(
    "fault", [{"right": 8}, {"later_peak": 60.0}, {"threads": 1}, {"faults": "it died"}]
)
def test_each_fault_is_found(fault):
    assert not FINE._replace(**fault).met


def test_an_unknown_load_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["load.py", "everything"])
    with pytest.raises(SystemExit):
        load.main()
    required = "LOAD must be among server, training, memmap, models; got 'everything'"
    assert required in capsys.readouterr().err
