"""What of an optimizer a resumed run takes from its checkpoint and what from its config."""

import copy

import pytest
import torch

from srl.errors import ConfigError
from srl.update.optimizer import optimizer_differences, optimizer_name, take_settings


def stepped(make):
    """An optimizer after one step on two numbers."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make([weight])
    weight.grad = torch.tensor([0.5, 0.25])
    optimizer.step()
    return optimizer


def resumed(before, after):
    """(what differs, the optimizer of the config with the state as the run loads it, the one before)."""
    saved = stepped(before)
    state, optimizer = (
        copy.deepcopy(saved.state_dict()),
        after([torch.nn.Parameter(torch.tensor([1.0, 2.0]))]),
    )
    found = [one[:4] for one in optimizer_differences(state, optimizer_name(saved), optimizer)]
    take_settings(state, optimizer_name(saved), optimizer)
    optimizer.load_state_dict(state)
    return found, optimizer, saved


ADAMW = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"weight_decay": 0.1}, ("weight_decay", "0.01", "0.1")),
        ({"betas": (0.8, 0.95)}, ("betas", "(0.9, 0.99)", "(0.8, 0.95)")),
        ({"eps": 1e-6}, ("eps", "1e-08", "1e-06")),
        ({"maximize": True}, ("maximize", "False", "True")),
    ],
)
def test_each_setting_of_the_config_wins_and_is_said(setting, said):
    found, optimizer, saved = resumed(
        lambda p: torch.optim.AdamW(p, **ADAMW), lambda p: torch.optim.AdamW(p, **ADAMW | setting)
    )
    assert found == [(f"model.optimizer.{said[0]}", *said[1:], "taken")]
    assert all(optimizer.param_groups[0][key] == value for key, value in setting.items())
    (old,), (new,) = saved.state.values(), optimizer.state.values()
    assert torch.equal(old["exp_avg"], new["exp_avg"])  # the moments stay the checkpoint's


def test_unchanged_settings_and_another_learning_rate_say_nothing():
    found, *_ = resumed(
        lambda p: torch.optim.AdamW(p, **ADAMW),
        lambda p: torch.optim.AdamW(p, **ADAMW | {"lr": 3.0, "betas": [0.9, 0.99]}),
    )
    assert found == []


@pytest.mark.parametrize("after", [torch.optim.SGD, torch.optim.Adam, torch.optim.RAdam])
def test_another_class_is_refused_in_one_line(after):
    with pytest.raises(
        ConfigError, match=f"model.optimizer is torch {after.__name__}, .*torch AdamW"
    ) as error:
        resumed(torch.optim.AdamW, lambda p: after(p, lr=0.1))
    assert "\n" not in str(error.value)


def test_a_setting_that_reads_what_was_not_kept_is_refused():
    with pytest.raises(ConfigError, match="amsgrad is True, the checkpoint was made with False"):
        resumed(torch.optim.AdamW, lambda p: torch.optim.AdamW(p, amsgrad=True))


def test_a_checkpoint_of_an_earlier_version_tells_the_class_by_its_settings():
    state = stepped(torch.optim.AdamW).state_dict()
    make = [torch.nn.Parameter(torch.zeros(2))]
    assert optimizer_differences(state, None, torch.optim.AdamW(make)) == []
    with pytest.raises(ConfigError, match="another class"):
        take_settings(state, None, torch.optim.SGD(make))
