"""Several processes that train one model: the pure parts in forked processes, then real runs of two ranks.

The runs are forked from one server that has Lightning imported; each rank finds itself in the environment,
as under any launcher, and goes the way of `trainer.strategy: ddp`.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import QUIET, expert_rows, fit, tracking_uri, write_rows
from resumed import equal

from srl import ranks
from srl.errors import ConfigError
from srl.packing.micro_batches import Row
from srl.types import Channel, Completion, Episode, Example, Group

# -- the pure parts -----------------------------------------------------------------------------------------


def over(count, work, tmp_path):
    """What `work(rank)` gives on each of `count` forked ranks that talk by Gloo."""
    context = multiprocessing.get_context("fork")

    def run(number):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meet", rank=number, world_size=count
        )
        torch.save(work(number), tmp_path / f"found{number}")  # a queue would share the tensors' memory
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

    processes = [context.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    return [torch.load(tmp_path / f"found{number}", weights_only=True) for number in range(count)]


def examples(count):
    return [Example(f"p{i}", "srl", 1, (i, i + 1), "t") for i in range(count)]


def group_of(example):
    number = example.prompt_ids[0]
    completions = [Completion((number, 7), f"{number}", torch.tensor([-0.1, -number / 3]), number % 2 == 0)]
    completions[0].end_token = number % 3 == 0
    parts = {"format": torch.ones(1)}
    made = Group(example, completions, torch.tensor([number / 7]), parts, sampled_at=3)
    if number % 2:  # a turn of an episode
        completions[0].prompt_ids = (3, number)
        made.episodes = (Episode("won", 1, seen=("x",), left=(1, 0)),)
        made.credits = torch.tensor([number / 5])
        made.channels = {"more": Channel(torch.tensor([number / 9]), "turn", "z_score", ("a",), 0.5)}
    return made


def test_every_rank_has_the_groups_of_all_in_the_order_of_the_draw(tmp_path):
    """5 prompts on 3 ranks: 0 and 3, 1 and 4, 2. What travels keeps every bit."""
    draw = examples(5)
    whole = [group_of(example).state_dict() for example in draw]

    def work(number):
        mine = ranks.share(draw)
        found = ranks.all_groups([group_of(example) for example in mine], draw)
        return [example.uid for example in mine], [group.state_dict() for group in found]

    found = over(3, work, tmp_path)
    assert [uids for uids, _ in found] == [["p0", "p3"], ["p1", "p4"], ["p2"]]
    for _, states in found:
        equal(states, whole)


def test_fewer_prompts_than_ranks_leave_some_without(tmp_path):
    draw = examples(1)

    def work(number):
        found = ranks.all_groups([group_of(example) for example in ranks.share(draw)], draw)
        return [group.example.uid for group in found]

    assert over(2, work, tmp_path) == [["p0"], ["p0"]]


def test_prompts_that_one_rank_wrote_are_those_of_all(tmp_path):
    """3 prompts on 2 ranks: each puts its number behind its own; all else of an example is as it was."""
    draw = examples(3)

    def work(number):
        mine = [replace(one, prompt_ids=(*one.prompt_ids, 90 + number)) for one in ranks.share(draw)]
        return [(one.uid, one.target, list(one.prompt_ids)) for one in ranks.all_examples(mine, draw)]

    assert (
        over(2, work, tmp_path)
        == [[("p0", "t", [0, 1, 90]), ("p1", "t", [1, 2, 91]), ("p2", "t", [2, 3, 90])]] * 2
    )


def test_decisions_agree(tmp_path):
    def work(number):
        return ranks.most(15 * number), ranks.total(number + 0.5), ranks.first({"a": number}), ranks.size()

    # largest of 0 and 15; 0.5 + 1.5; rank 0's
    assert over(2, work, tmp_path) == [(15, 2.0, {"a": 0}, 2)] * 2


def test_gradients_are_added_and_rows_are_divided_whole(tmp_path):
    """Prompts of 5, 3 and 2 tokens with their responses: the first to rank 0, the others to rank 1."""
    rows = [Row((1, 1), (1, 1, 1), 0.5), Row((2, 2), (1,), 0.25), Row((3,), (1,), 0.25)]
    rows += [Row((2, 2), (), 0.0)]  # of the second prompt too

    def work(number):
        used, unused = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        mine = ranks.share_of_rows(rows)
        if number == 1:  # rank 0 touches nothing, and gets the gradient all the same
            (used * sum(row.weight for row in mine)).sum().backward()
        ranks.add_gradients([used, unused])
        totals = ranks.totals_of_all(
            {"loss": 1.0 + number, "gap_max": 3.0 - number, **({"kl": 1.0} if number else {})}
        )
        return [row.prompt_ids[0] for row in mine], used.grad.tolist(), unused.grad is None, totals

    totals = {"loss": 3.0, "gap_max": 3.0, "kl": 1.0}
    assert over(2, work, tmp_path) == [([1], [0.5, 0.5], True, totals), ([2, 2, 3], [0.5, 0.5], True, totals)]


def test_one_process_is_as_it_was():
    draw = examples(3)
    groups = [group_of(example) for example in draw]
    assert ranks.share(draw) == draw
    assert [a is b for a, b in zip(ranks.all_groups(groups, draw), groups, strict=True)] == [True] * 3
    assert (ranks.rank(), ranks.size(), ranks.most(7), ranks.total(2), ranks.first(5)) == (0, 1, 7, 2.0, 5)
    assert ranks.by_rank("mine", []) == "mine"
    with pytest.raises(ConfigError, match=r"written on 2 devices, this run has 1: .* trainer\.devices: 2"):
        ranks.by_rank("mine", ["other"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--trainer.devices 2 --trainer.strategy ddp_fork", "trainer.strategy makes a DDPStrategy by fork"),
        ("--trainer.devices 2 --trainer.strategy fsdp", "`fsdp` requires a GPU"),  # Lightning's; ours on one
        ("--trainer.devices 1 --trainer.strategy deepspeed", "deepspeed"),
    ],
)
def test_other_strategies_are_refused(refused, more, message):
    assert message in refused(*more.split())


def test_sharded_strategies_are_refused_where_lightning_has_them():
    from lightning.pytorch.strategies import FSDPStrategy

    from modules.ranks import check_strategy

    with pytest.raises(ConfigError, match=r"makes a FSDPStrategy, which has not been tried .*; write ddp"):
        check_strategy(SimpleNamespace(strategy=FSDPStrategy(), world_size=2), "fit")


@pytest.mark.parametrize("command", ["test", "validate"])
def test_only_training_runs_on_several_devices(model_folder, expert_file, tmp_path, capsys, command):
    more = ["--trainer.devices", "2", *QUIET]
    assert fit(model_folder, expert_file, tmp_path / "run", *more, command=command) == 2
    assert f"srl: error: {command} runs on one device; write trainer.devices: 1" in capsys.readouterr().err


# -- runs ---------------------------------------------------------------------------------------------------


def rank_of(number, count, port, model_folder, data, folder, arguments, mark):
    """One rank of a run, its output in a file of its own."""
    output = os.open(folder.parent / f"output{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(place, "w", buffering=1, closefd=False) for place in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if count > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(number)}
    prompts_by_themselves()
    if mark:
        mark_the_third_update(mark)
    several = ["--trainer.devices", str(count)] if count > 1 else []
    sys.exit(fit(model_folder, data, folder, *several, *arguments))


def prompts_by_themselves():
    """Give each prompt noise of its own, so that rollouts are the same however they are divided. Where plays
    ask with the same one, the second has that of the second, on one rank as on two: a group stays together.
    """
    from srl.engine.engine import RolloutEngine

    generate = RolloutEngine.generate

    def alone(engine, batch, n, sampling, generator, history=None):
        found, asked = [], Counter()
        for example in batch:
            asked[example.prompt_ids] += 1
            seed = sum(example.prompt_ids) + int(sampling.temperature) + 1000 * asked[example.prompt_ids]
            own = torch.Generator().manual_seed(seed)
            found += generate(engine, [example], n, sampling, own)
        return found

    RolloutEngine.generate = alone


def mark_the_third_update(mark):
    from modules.policy import PolicyModule

    step = PolicyModule.training_step

    def marked(module, *arguments):
        if module.global_step == 2 and not mark.exists():
            mark.touch()
            while not mark.with_suffix(".sent").exists():
                time.sleep(0.01)
        return step(module, *arguments)

    PolicyModule.training_step = marked


@pytest.fixture(scope="module")
def run(server, model_folder, tmp_path_factory):
    """Run a fit on so many ranks: statuses, outputs, folder. term: SIGTERM to rank 0 in its third update."""

    def start(count, *arguments, term=False, folder=None, rows=None):
        folder = folder or tmp_path_factory.mktemp("ranks") / "run"
        data = write_rows(folder.parent / "expert.jsonl", rows or expert_rows(24))
        tracking_uri(folder.parent)  # made here, once a session
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        mark = folder.parent / "mark" if term else None
        processes = [
            server.Process(
                target=rank_of, args=(number, count, port, model_folder, data, folder, arguments, mark)
            )
            for number in range(count)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 900
        while mark and not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if mark:
            os.kill(processes[0].pid, signal.SIGTERM)
            mark.with_suffix(".sent").touch()
        for process in processes:
            process.join(max(1, deadline - time.monotonic()))
        texts = [(folder.parent / f"output{number}").read_text() for number in range(count)]
        if any(process.is_alive() for process in processes):
            for process in processes:
                process.kill()
            pytest.fail("still running: " + "\n---\n".join(texts))
        return SimpleNamespace(status=[p.exitcode for p in processes], texts=texts, folder=folder)

    return start


PHASES = """[
 {name: srl, mix: {srl: 1.0}, batch_groups: 3, until: {updates: 2}},
 {name: both, mix: {srl: 1.0, sft_step: 1.0}, lr: 0.01, batch_groups: 4}
]"""
# A draw of 5 does not divide by 2, and epsilon drops some groups: the buffer is in use.
ARGUMENTS = [
    "--curriculum.phases", PHASES, "--curriculum.draw_prompts", "5", "--dynamic_sampling.epsilon", "0.02",
    "--dynamic_sampling.max_draws", "9", "--trainer.max_steps", "4", "--trainer.val_check_interval", "4",
    "--rollout.temperature", "1.5", "--model.validation.attempts", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def both(run):
    """The same run on one device and on two."""
    return run(1, *ARGUMENTS), run(2, *ARGUMENTS)


def callbacks_of(state):
    return {name.split("{")[0]: value for name, value in state["callbacks"].items()}


def test_two_ranks_train_as_one_process_does(both):
    """The same draws, groups, hand-off and checkpoint; the weights up to the order of float additions."""
    one, two = both
    assert (one.status, two.status) == ([0], [0, 0]), "\n".join([*one.texts, *two.texts])
    a, b = (torch.load(found.folder / "last.ckpt", weights_only=True) for found in both)
    assert a["global_step"] == b["global_step"] == 4
    start = torch.cat([weight.flatten() for weight in a["state_dict"].values()])
    gap = start - torch.cat([weight.flatten() for weight in b["state_dict"].values()])
    assert gap.abs().max() < 1e-5, "a rounding of 1e-7 grows a little in four updates"
    ours, theirs = callbacks_of(a), callbacks_of(b)
    equal(ours["Curriculum"], theirs["Curriculum"])
    equal(
        a["loops"]["fit_loop"]["state_dict"]["combined_loader"],
        b["loops"]["fit_loop"]["state_dict"]["combined_loader"],
    )
    waiting = [[g["example"]["uid"] for g in found["DynamicSampling"]["buffer"]] for found in (ours, theirs)]
    assert waiting[0] == waiting[1]


def test_one_rank_writes_and_speaks(both):
    from mlflow import MlflowClient

    histories = []
    for found in both:
        client = MlflowClient(f"sqlite:///{found.folder.parent}/mlflow.db")
        (mlflow_run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
        names = [name for name in mlflow_run.data.metrics if name.startswith(("train/", "val/", "rollouts/"))]
        names = [name for name in names if "second" not in name]
        histories.append(
            {
                name: [
                    (m.step, pytest.approx(m.value, abs=1e-4))
                    for m in client.get_metric_history(mlflow_run.info.run_id, name)
                ]
                for name in names
            }
        )
    one, two = histories
    assert one.keys() == two.keys()
    for name in one:
        assert [step for step, _ in one[name]] == [step for step, _ in two[name]], name
        assert [value.expected for _, value in one[name]] == [value for _, value in two[name]], name
    texts = both[1].texts
    assert "Data: problems/train" in texts[0]
    assert "Held-out problems" in texts[0]
    assert "problems/train" not in texts[1]


def test_a_signal_to_one_rank_ends_both_and_the_run_goes_on_bitwise(both, run):
    """Each rank's generators and the shared buffer are in the one checkpoint."""
    _, two = both
    ended = run(2, *ARGUMENTS, term=True)
    assert ended.status == [143, 0], ended.texts
    assert "stopped by SIGTERM after update 3; go on with --ckpt_path last" in ended.texts[0]
    state = torch.load(ended.folder / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3
    (other,) = callbacks_of(state)["RandomState"]["others"]
    assert other.keys() == {"torch", "cuda", "python"}
    again = run(2, *ARGUMENTS, "--ckpt_path", "last", folder=ended.folder)
    assert again.status == [0, 0], again.texts
    expected, found = (torch.load(f.folder / "last.ckpt", weights_only=True) for f in (two, again))
    equal(expected["state_dict"], found["state_dict"])
    equal(expected["optimizer_states"], found["optimizer_states"])
    alone = run(1, *ARGUMENTS, "--ckpt_path", "last", "--trainer.max_steps", "5", folder=ended.folder)
    assert alone.status == [2]
    assert "the checkpoint was written on 2 devices, this run has 1" in alone.texts[0]
