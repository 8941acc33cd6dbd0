"""Out of memory in rollouts: fewer at a time, the same numbers again; and the longest draw tried first."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import expert_rows, fit, tiny_model, tiny_tokenizer
from make import TEXTS, example

from srl.engine import general
from srl.engine.decoder import Decoder
from srl.engine.engine import RolloutEngine
from srl.errors import TrainingStopped
from srl.types import Completion, Sampling


def limit_rows(monkeypatch, most, after=0):
    """Steps of more than `most` rows run out of memory, but for the first `after` steps; how many did."""
    step, raised, made = Decoder.step, [], []

    def limited(decoder, tokens, caches):
        made.append(len(tokens))
        if len(tokens) > most and len(made) > after:
            raised.append(len(tokens))
            raise torch.OutOfMemoryError(f"out of memory with {len(tokens)} rows")
        return step(decoder, tokens, caches)

    monkeypatch.setattr(Decoder, "step", limited)
    return raised


def sampled(rows, generator, path="auto"):
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (1,), rows, path=path)
    examples = [example(text + str(i), tokenizer) for i, text in enumerate(TEXTS)]
    found = engine.generate(examples, 4, Sampling(), generator)
    return engine, [(c.ids, c.logprobs.tolist()) for group in found for c in group]


def test_what_is_sampled_after_a_failure_is_what_the_lower_bound_gives(monkeypatch, caplog):
    """5 prompts of 4: 20 rows do not fit, nor 10; 5 let one prompt in at a time. Five steps had been made."""
    failing, plain = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    _, expected = sampled(5, plain)
    with monkeypatch.context() as patch:
        raised = limit_rows(patch, 4, after=5)
        engine, found = sampled(256, failing)
    assert raised == [20, 8]  # of at most 10 rows two prompts of 4 are in flight
    assert engine.rows_in_flight == 5
    assert found == expected
    assert torch.equal(failing.get_state(), plain.get_state())
    said = [record.getMessage() for record in caplog.records if record.name == "srl.out_of_memory"]
    assert said == [
        "out of memory with 20 rollouts at once: rows_in_flight is 10 from now on; sampling again",
        "out of memory with 10 rollouts at once: rows_in_flight is 5 from now on; sampling again",
    ]


def test_on_the_slow_path_rows_of_one_prompt_go_apart(monkeypatch):
    """4 of a prompt do not fit, 2 do: each row reads its own prompt."""
    _, expected = sampled(2, torch.Generator().manual_seed(0), "transformers")
    steps = general._steps

    def limited(decoder, rows, *more):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return steps(decoder, rows, *more)

    monkeypatch.setattr(general, "_steps", limited)
    engine, found = sampled(256, torch.Generator().manual_seed(0), "transformers")
    assert engine.rows_in_flight == 2
    assert found == expected


def test_the_rollouts_of_one_prompt_that_do_not_fit_end_in_words(monkeypatch):
    limit_rows(monkeypatch, 3)
    with pytest.raises(TrainingStopped, match="no room for the 4 of one prompt"):
        sampled(256, torch.Generator().manual_seed(0))


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Decoder, "step", broken)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        sampled(256, torch.Generator().manual_seed(0))


def test_the_run_keeps_what_it_found_and_a_new_number_of_the_users_counts(
    model_folder, expert_file, tmp_path, monkeypatch
):
    """A draw has 3 prompts x 4 rollouts; 12 do not fit in the first draw alone."""
    quiet = ["--trainer.logger", "false", "--model.validation.attempts", "0", "--trainer.max_steps", "1"]

    def run(name, *more):
        assert fit(model_folder, expert_file, tmp_path / name, *quiet, *more) == 0
        return torch.load(tmp_path / name / "last.ckpt", weights_only=True)["srl"]["rows_in_flight"]

    with monkeypatch.context() as patch:
        patch.setattr(RolloutEngine, "_run", failing_once(RolloutEngine._run))
        assert run("found") == {"set": 256, "now": 6}
    last = ["--ckpt_path", str(tmp_path / "found" / "last.ckpt"), "--trainer.max_steps", "2"]
    assert run("again", *last) == {"set": 256, "now": 6}
    assert run("own", *last, "--model.rows_in_flight", "8") == {"set": 8, "now": 8}


def failing_once(run):
    """The first training draw, 12 rollouts, does not fit."""
    raised = []

    def failing(engine, scheduler, *arguments):
        if len(scheduler.rollouts) == 12 and not raised:
            raised.append(1)
            raise torch.OutOfMemoryError("out of memory")
        return run(engine, scheduler, *arguments)

    return failing


# -- the longest first --------------------------------------------------------------------------------------

LONGEST = ("--model.update.try_longest", "true")


def test_trying_the_longest_leaves_everything_as_it_was(model_folder, expert_file, tmp_path, monkeypatch):
    from callbacks.rollout import Rollout

    tried = Rollout._try_longest
    seen = []

    def watched(callback, trainer, module):
        before = [torch.get_rng_state(), callback._generator.get_state(), dict(trainer.callback_metrics)]
        tried(callback, trainer, module)
        after = [torch.get_rng_state(), callback._generator.get_state(), dict(trainer.callback_metrics)]
        assert torch.equal(before[0], after[0])
        assert torch.equal(before[1], after[1])
        assert before[2] == after[2]
        assert all(parameter.grad is None for parameter in module.parameters())
        assert not trainer.optimizers[0].state
        seen.append(trainer.global_step)

    monkeypatch.setattr(Rollout, "_try_longest", watched)
    quiet = ["--trainer.logger", "false", "--model.validation.attempts", "0"]
    mix = ["--curriculum.phases", "[{name: all, mix: {srl: 1, rlvr: 1, sft_step: 1}}]"]
    states = []
    for name, more in [("plain", ()), ("tried", LONGEST)]:
        assert fit(model_folder, expert_file, tmp_path / name, *quiet, *mix, *more) == 0
        states.append(torch.load(tmp_path / name / "last.ckpt", weights_only=True))
    assert seen == [0, 0]
    for part in ("state_dict", "optimizer_states", "srl"):
        assert str(states[0][part]) == str(states[1][part])
    assert all(torch.equal(v, states[1]["state_dict"][name]) for name, v in states[0]["state_dict"].items())


def test_a_teacher_reads_the_longest_rows_too(tokenizer):
    from modules.longest import Draws, _sampled, size

    knowing = example("Q?", tokenizer, teaching="size", taught_ids=(1, 2, 3, 4))
    peers = example("Q?", tokenizer, teaching="target")  # its teacher reads another response of the group
    said = Completion((7,), "", torch.zeros(1), False)
    engine = SimpleNamespace(
        rows_in_flight=8, end_ids=frozenset(), generate=lambda examples, *_: [[said] for _ in examples]
    )
    module = SimpleNamespace(engine=engine, device=torch.device("cpu"))
    rows = _sampled(module, [knowing, peers], 1, Draws(2, 1, Sampling()))
    assert [row.taught_ids for row in rows] == [(1, 2, 3, 4), (*peers.prompt_ids, 7)]
    assert all(row.asks_teacher for row in rows)
    assert (size(knowing), size(peers)) == (4 + 12, 2 + 12)


def test_of_plays_the_longest_turn_of_each_is_tried_and_what_vllm_samples_is_not_sampled(
    tokenizer, monkeypatch
):
    """Two tasks of three plays each, none of which shares its prompt with another."""
    import modules.longest
    from modules.longest import Draws, try_longest

    asked, trained = [], []

    def generate(examples, n, *_):
        asked.append([(one.prompt_ids, n) for one in examples])
        return [[Completion((7,) * one.max_new_tokens, "", torch.zeros(12), False)] for one in examples]

    engine = SimpleNamespace(rows_in_flight=8, end_ids=frozenset(), generate=generate)
    module = SimpleNamespace(engine=engine, device=torch.device("cpu"))
    monkeypatch.setattr(modules.longest, "_train", lambda _, rows: trained.append(rows))
    sources = {"episode": [example("ab", tokenizer), example("cde", tokenizer), example("x", tokenizer)]}
    sources["sft_step"] = [example("other", tokenizer, target_ids=(1, 2))]
    draws = Draws(2, 3, Sampling(), frozenset({"episode"}), turn_tokens=9)
    try_longest(module, sources, draws)
    ((*prompts,),) = asked
    assert len({ids for ids, _ in prompts}) == len(prompts) == 6
    assert {(len(ids), n) for ids, n in prompts} == {(9, 1)}
    assert sorted(len(row.prompt_ids) + len(row.action_ids) for row in trained[0]) == [5 + 2, *[9 + 12] * 6]
    try_longest(module, sources, replace(draws, here=False))
    assert len(asked) == 1
    assert [len(row.action_ids) for row in trained[1]] == [len(row.action_ids) for row in trained[0]]
    engine.rows_in_flight = 2  # two waves of two plays, of six
    try_longest(module, sources, replace(draws, turn_tokens=99, room=20))
    assert {len(ids) for ids, _ in asked[1]} == {20 - 12}
    assert len(trained[2]) == 1 + 4


def test_what_will_not_fit_fails_before_the_first_update(refused, monkeypatch):
    """The longest prompt is that of a third step, a token a character, and its response may have 8."""
    import modules.longest

    sizes, train = [], modules.longest._train

    def watched(module, rows):
        sizes.extend(len(row.prompt_ids) + len(row.action_ids) for row in rows)
        decoder = module.engine.decoder.backbone
        hook = decoder.register_forward_pre_hook(failing, with_kwargs=True)
        try:
            train(module, rows)
        finally:
            hook.remove()

    def failing(_, args, kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(modules.longest, "_train", watched)
    mix = ["--curriculum.phases", "[{name: all, mix: {srl: 1, rlvr: 1}}]"]
    line = refused(*LONGEST, *mix, status=1)
    assert "one prompt with its response" in line
    texts = ["\n".join([row["problem"], *(step["body"] for step in row["steps"][:2]), ""])
             for row in expert_rows(24)]  # fmt: skip
    assert max(sizes) == max(map(len, texts)) + 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA; never run so far")
def test_memory_that_is_really_short_on_cuda():
    """Under a limit on this process's share: fewer rows fit, and what comes is what the lower bound gives."""
    from srl.types import Example

    device = torch.device("cuda")
    model = tiny_model(vocab_size=96, layers=8).to(device)
    examples = [Example("u", "srl", 1, (5 + i,) * 16, "t", max_new_tokens=400) for i in range(64)]

    def sampled(rows):
        engine = RolloutEngine(model, tiny_tokenizer(), (), rows)
        generator = torch.Generator(device).manual_seed(0)
        return engine, engine.generate(examples, 64, Sampling(), generator)

    engine, _ = sampled(64)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    sampled(64)
    room = 4 * torch.cuda.max_memory_allocated()  # for 64 rows four times over, not for 4,096
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        engine, found = sampled(4096)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 64 <= engine.rows_in_flight < 4096
    _, expected = sampled(engine.rows_in_flight)
    assert [c.ids for group in found for c in group] == [c.ids for group in expected for c in group]
