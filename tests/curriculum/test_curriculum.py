"""Phases: what is refused, when one ends, and what the hand-off changes. The schedule is pure."""

from itertools import accumulate
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from callbacks.curriculum import Curriculum
from srl.curriculum.phases import Phase, Until, check_phases
from srl.curriculum.schedule import Schedule
from srl.curriculum.stream import Draw
from srl.errors import ConfigError
from srl.evaluation.validation import ValidationSettings

NAMES = ["sft", "srl", "rlvr"]
MIX = {"srl": 1.0}


def schedule(*steps):
    """Phases p0, p1, ... that end after these numbers of updates, and an endless last one."""
    phases = [Phase(f"p{i}", MIX, Until(count)) for i, count in enumerate(steps)]
    return Schedule([*phases, Phase("last", MIX)])


# -- the learning rate ------------------------------------------------------------------------------------


def test_learning_rate_warms_up_linearly_then_stays():
    # 4 updates of warm-up to 0.8: 1/4, 2/4, 3/4, 4/4 of it
    phase = Phase("a", MIX, lr=0.8, warmup=4)
    assert [phase.lr_at(update, base_lr=9.0) for update in range(6)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )


def test_learning_rate_of_a_phase_without_one_is_the_optimizers():
    assert [Phase("a", MIX).lr_at(update, base_lr=3.0) for update in (0, 7)] == [3.0, 3.0]
    assert Phase("a", MIX, lr=2.0).lr_at(0, base_lr=3.0) == 2.0


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "curriculum.phases is empty"),
        ([Phase("a", MIX, Until(1)), Phase("a", MIX)], r"the names \['a', 'a'\] repeat"),
        ([Phase("a", {"sr1": 1.0})], r"phases\[0\] \(a\): no objective called sr1; there are sft, srl, rlvr"),
        ([Phase("a")], r"phases\[0\] \(a\): mix is \{\}"),
        ([Phase("a", {"srl": 0.0})], "mix is {'srl': 0.0}; give shares of at least 0, not all 0"),
        ([Phase("a", {"srl": 2.0, "sft": -1.0})], "mix is .*-1.0"),
        ([Phase("a", MIX, batch_groups=0)], "batch_groups is 0; it must be at least 1"),
        ([Phase("a", MIX, lr=0.0)], "lr is 0.0; it must be positive"),
        ([Phase("a", MIX), Phase("b", MIX)], r"phases\[0\] \(a\): it never ends, yet phases follow it"),
        ([Phase("a", MIX, Until(1)), Phase("b", MIX, Until(1))], r"phases\[1\] \(b\): the last phase has no"),
    ],
)
def test_what_could_only_fail_later_is_refused(phases, message):
    with pytest.raises(ConfigError, match=message):
        check_phases(phases, NAMES)


def test_good_phases_pass():
    check_phases([Phase("a", {"srl": 1.0, "sft": 0.0}, Until(1)), Phase("b", {"rlvr": 2.0})], NAMES)


def test_a_phase_of_no_updates_is_refused():
    with pytest.raises(ConfigError, match=r"until\.updates is 0; a phase needs at least 1 update"):
        Until(0)


# -- the schedule -----------------------------------------------------------------------------------------


def test_phases_end_after_their_updates():
    made = schedule(2, 3)
    seen = []
    for _ in range(7):
        seen.append((made.phase.name, made.updates, made.advance() is not None))
    assert seen == [
        ("p0", 0, False),
        ("p0", 1, True),
        ("p1", 0, False),
        ("p1", 1, False),
        ("p1", 2, True),
        ("last", 0, False),
        ("last", 1, False),
    ]


def test_a_batch_of_several_optimizer_steps_counts_them_all():
    made = schedule(4)
    assert [made.advance(3), made.updates] == [None, 3]
    found = made.advance(3)
    assert [found.left.name, found.entered.name, made.updates] == ["p0", "last", 0]  # 6 of 4: over
    assert (found.reason, found.figures) == ("it had made its 4 updates", {"updates": 6.0})


@given(steps=st.lists(st.integers(1, 6), max_size=4), updates=st.integers(0, 30))
def test_the_phase_is_the_first_whose_end_lies_ahead(steps, updates):
    made = schedule(*steps)
    changes = sum(made.advance() is not None for _ in range(updates))
    ends = list(accumulate(steps))
    passed = [end for end in ends if end <= updates]
    assert (made.index, changes) == (len(passed), len(passed))
    assert made.updates == updates - (passed[-1] if passed else 0)


@given(steps=st.lists(st.integers(1, 6), max_size=4), before=st.integers(0, 20), after=st.integers(0, 10))
def test_a_restored_schedule_goes_on_as_the_first_would(steps, before, after):
    made, again = schedule(*steps), schedule(*steps)
    for _ in range(before):
        made.advance()
    again.load_state_dict(made.state_dict())
    assert [again.advance() for _ in range(after)] == [made.advance() for _ in range(after)]
    assert again.state_dict() == made.state_dict()


def test_a_checkpoint_of_an_unknown_phase_is_refused():
    state = schedule(2).state_dict()
    with pytest.raises(ConfigError, match=r"in phase 'p0', but curriculum\.phases has warm, srl: resume"):
        Schedule([Phase("warm", MIX, Until(1)), Phase("srl", MIX)]).load_state_dict(state)


# -- the callback -----------------------------------------------------------------------------------------


class Run:
    """A trainer with a data module that writes down what the callback asks of it."""

    def __init__(self, phases, **kwargs):
        self.callback = Curriculum(phases, **kwargs)
        self.asked = []
        stream = SimpleNamespace(
            set_mix=lambda mix, size, level: self.asked.append((mix, size)),
            observe=lambda groups: None,
            metrics=dict,
        )
        parameter = torch.nn.Parameter(torch.ones(1))
        self.optimizer = torch.optim.Adam([parameter])
        parameter.grad = torch.ones(1)
        self.optimizer.step()
        self.trainer = SimpleNamespace(
            datamodule=SimpleNamespace(
                stream=stream, build_stream=lambda names, size, *_: self.asked.append((names, size))
            ),
            global_step=0,
            loggers=[],
            callback_metrics={},
            optimizers=[self.optimizer],
        )

    def batch(self, updates=1, **metrics):
        batch = Draw([])
        batch.metrics |= metrics
        self.callback.on_train_batch_start(self.trainer, None, batch, 0)
        self.trainer.global_step += updates
        self.callback.on_train_batch_end(self.trainer, None, None, batch, 0)
        return batch


def test_the_stream_is_built_for_all_phases_and_only_to_fit():
    phases = [
        Phase("a", {"srl": 1.0, "sft": 0.0}, Until(1), batch_groups=3),
        Phase("b", {"rlvr": 1.0, "srl": 1.0}),
    ]
    run = Run(phases, batch_groups=5)
    module = SimpleNamespace(validation_settings=ValidationSettings())
    run.callback.setup(run.trainer, module, "validate")
    assert run.asked == []
    run.callback.setup(run.trainer, module, "fit")
    assert run.asked == [(["srl", "rlvr"], 3)]  # in order, each once, no share of 0


@pytest.mark.parametrize(("draw_prompts", "sizes"), [(None, [3, 5]), (7, [7, 7])])
def test_a_draw_is_as_large_as_the_phases_batch_unless_said(draw_prompts, sizes):
    run = Run(
        [Phase("a", MIX, Until(1), batch_groups=3), Phase("b", {"rlvr": 1.0})],
        batch_groups=5,
        draw_prompts=draw_prompts,
    )
    run.callback.on_train_start(run.trainer, None)
    batches = [run.batch(), run.batch()]
    assert run.asked == [({"srl": 1.0}, sizes[0]), ({"rlvr": 1.0}, sizes[1])]
    assert [batch.phase.batch_groups for batch in batches] == [3, 5]


def test_batches_carry_the_phase_in_which_they_were_drawn():
    run = Run([Phase("a", MIX, Until(2)), Phase("b", MIX)])
    # the second batch makes no update (not enough groups yet, or a skipped gradient): it does not count
    batches = [run.batch(), run.batch(updates=0), run.batch(), run.batch()]
    seen = [(batch.phase.name, batch.phase.index, batch.phase.updates) for batch in batches]
    assert seen == [("a", 0, 0), ("a", 0, 1), ("a", 0, 1), ("b", 1, 0)]


def test_several_optimizer_steps_of_one_batch_count_in_the_phase():
    run = Run([Phase("a", MIX, Until(4)), Phase("b", MIX)])
    assert [run.batch(updates=2).phase.name for _ in range(3)] == ["a", "a", "b"]


@pytest.mark.parametrize("reset", [True, False])
def test_the_moments_are_forgotten_where_the_phase_says_so(reset):
    run = Run([Phase("a", MIX, Until(1)), Phase("b", MIX, reset_optimizer=reset)])
    assert run.optimizer.state
    run.batch()
    assert bool(run.optimizer.state) != reset


def test_the_callbacks_state_is_the_schedules():
    phases = [Phase("a", MIX, Until(1)), Phase("b", MIX)]
    run, again = Run(phases), Run(phases)
    run.batch()
    run.batch()
    again.callback.load_state_dict(run.callback.state_dict())
    kept = {"phase": "b", "updates": 1, "best": None, "stale": 0, "signal": None}
    kept |= {"followed": {}, "known": []}
    assert again.callback.state_dict() == kept
    again.callback.on_train_start(again.trainer, None)
    assert again.batch().phase.name == "b"
    with pytest.raises(ConfigError, match="no objective called sr1"):
        Run([Phase("a", {"sr1": 1.0})])


WAITING = [Phase("a", MIX, Until(updates=30, metric="train/reward", above=0.5)), Phase("b", MIX)]


def test_a_figure_that_comes_late_ends_its_phase_in_a_resumed_run_too():
    run, again = Run(WAITING), Run(WAITING)
    for _ in range(19):
        run.batch()
    assert run.batch(**{"train/reward": 0.1}).phase.name == "a"
    again.callback.load_state_dict(run.callback.state_dict())
    again.callback.on_train_start(again.trainer, None)
    for _ in range(9):
        again.batch()  # it has been measured, and now and then is not
    again.batch(**{"train/reward": 0.6})
    assert again.batch().phase.name == "b"


NEVER = "waits for train/nll, which its updates do not log; there are train/reward"


def test_a_figure_that_never_comes_is_refused_after_20_updates():
    until = Until(updates=30, metric="train/nll", below=0.5)
    run = Run([Phase("a", MIX, until), Phase("b", MIX)])
    for _ in range(19):
        run.batch(**{"train/reward": 0.1})
    with pytest.raises(ConfigError, match=NEVER):
        run.batch()


def test_where_its_phase_ends_before_that_it_is_said(caplog):
    until = Until(updates=3, metric="train/nll", below=0.5)
    run = Run([Phase("a", MIX, until), Phase("b", MIX)])
    for _ in range(3):
        run.batch(**{"train/reward": 0.1})
    assert run.batch().phase.name == "b"
    assert [NEVER in message for message in caplog.messages if "waits for" in message] == [True]


def test_what_a_validation_did_not_measure_is_no_measurement():
    """The trainer keeps the value of an earlier validation."""
    until = Until(metric="val/episode/success", plateau=2)
    run = Run([Phase("a", MIX, until), Phase("b", MIX)])
    run.trainer.callback_metrics = {"val/episode/success": 0.5}
    run.trainer.state, run.trainer.sanity_checking = SimpleNamespace(fn="fit"), False
    for unmeasured in (set(), *[{"val/episode/success"}] * 3):
        run.callback.on_validation_end(run.trainer, SimpleNamespace(unmeasured=unmeasured))
    assert run.batch().phase.name == "a"


@pytest.mark.parametrize("wrong", [{"batch_groups": 0}, {"draw_prompts": 0}])
def test_sizes_of_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match="at least 1"):
        Curriculum([Phase("srl", {"srl": 1.0})], **wrong)
