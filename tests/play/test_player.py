"""Episodes and states of own play, in the real pool, by policies that are known."""

from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from letters import CLASS, rows
from make import plain_logprobs, write

from callbacks.rollout import Rollout
from datamodules.expert import ExpertDataModule, Validation
from srl.curriculum.stream import Draw
from srl.data.load import DataReport, load_trajectories
from srl.data.row_format import MIN_STEPS, RowFormat
from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.evaluation.playing import solve_by_play
from srl.evaluation.validation import ValidationMetrics, ValidationSettings
from srl.examples.builder import ResponseLimits
from srl.examples.prompts import PromptFormat
from srl.objectives.episode import figures
from srl.objectives.table import objectives
from srl.packing.micro_batches import micro_batches
from srl.play.player import WorldSettings, turn_rows
from srl.types import Completion, Group, Sampling
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of
from srl.worlds.recording import recorded

TOKENIZER = tiny_tokenizer()


class Table:
    """The examples of an objective and the player over them, as a run has them."""

    def __init__(
        self,
        folder,
        expert,
        turns=4,
        prompt_tokens=512,
        context_turns=20,
        stop=("\n",),
        min_steps=MIN_STEPS,
        **more,
    ):
        self.path = write(folder / "plays.jsonl", expert)
        prompt = PromptFormat("raw", context_turns=context_turns)
        limits = ResponseLimits(
            step_tokens=4,
            step_stop=stop,
            max_turns=turns,
            max_prompt_tokens=prompt_tokens,
            **more,
        )
        self.data = ExpertDataModule(
            self.path, think=False, include_last=True, prompt=prompt, limits=limits,
            worlds=WorldSettings(workers=2, own=(CLASS,)), validation=Validation(problems=0),
        )  # fmt: skip
        self.trajectories = load_trajectories(self.path, RowFormat(min_steps=min_steps), DataReport())
        self.data.builder = self.builder = self.data.builder_for(TOKENIZER)
        self.player = self.data.player

    def examples(self, objective="episode"):
        return list(objectives()[objective].examples(self.builder, self.trajectories))


@pytest.fixture
def table(tmp_path):
    made = []

    def make(words, **kwargs):
        made.append(Table(tmp_path, kwargs.pop("expert", None) or rows(words), **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.data.teardown("fit")


def said(text, finished=True):
    ids = tuple(TOKENIZER(f"{text}\n", add_special_tokens=False)["input_ids"])
    return Completion(ids, text, torch.zeros(len(ids)), finished)


def always(text):
    return lambda prompts: [said(text) for _ in prompts]


def in_turn(*texts):
    """Each turn the next text, in every play."""
    left = list(texts)

    def policy(prompts):
        text = left.pop(0)
        return [said(text) for _ in prompts]

    return policy


def by_heart(prompts):
    """The letter that the world showed last."""
    return [said(TOKENIZER.decode(one.prompt_ids).split()[-1][-1]) for one in prompts]


def test_the_prompts_of_a_play_are_those_of_the_recorded_steps_where_the_policy_acts_as_the_expert(table):
    one = table(["abab"])
    (found,) = one.player.play(one.examples(), by_heart)
    recorded = [example.prompt_ids for example in one.examples("srl")]
    assert [turn.prompt_ids for turn in found.turns] == recorded
    assert TOKENIZER.decode(recorded[2]) == "0 write what is shown: a\na\nprinted:\nb\nb\nprinted:\na\n"
    assert (found.episode.end, found.episode.turns, found.episode.left) == ("won", 4, (4, 3, 2, 1, 0))
    for turn, longer in pairwise(recorded):
        assert longer[: len(turn)] == turn  # so that a tree of prompts holds each token once


def test_so_it_is_in_textworld(table):
    pytest.importorskip(
        "textworld", reason="needs the extra: pip install -c constraints.txt -e '.[textworld]'"
    )
    found = dict(recorded("textworld:rooms=2,objects=4,length=3", range(3), workers=1))
    one = table((), expert=list(found.values()), prompt_tokens=4000, turns=4)
    actions = {row["uid"]: [step["body"] for step in row["steps"]] for row in found.values()}

    def expert(prompts):
        return [said(actions[prompt.uid][prompt.step - 1]) for prompt in prompts]

    played = one.player.play(one.examples(), expert)
    assert {play.episode.end for play in played} == {"won"}
    assert all(play.episode.left == (3, 2, 1, 0) and not play.episode.invalid for play in played)
    prompts = [turn.prompt_ids for play in played for turn in play.turns]
    assert prompts == [example.prompt_ids for example in one.examples("srl")]
    rambling = one.player.play(one.examples(), always("Sure, here is what I would do"))
    assert {(play.episode.end, play.episode.invalid, play.episode.repeated) for play in rambling} == {
        ("turns", 4, 2)  # the same answer from the second on
    }


def test_a_known_policy_wins_where_it_must_and_loses_elsewhere(table):
    one = table(["aa", "ba"], turns=3)
    won, cut = (played.episode for played in one.player.play(one.examples(), always("a")))
    assert (won.end, won.won, won.score, won.turns) == ("won", True, 1.0, 2)
    # b is asked for, a comes: behind the same answer each time, so all but the first are repeated
    assert (cut.end, cut.won, cut.cut, cut.turns, cut.repeated) == ("turns", False, True, 3, 1)
    assert cut.left == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("texts", "end", "turns", "answers"),
    [
        (["x"], "lost", 1, ("a",)),
        (["a", ""], "format", 2, ("b",)),
        (["a\nb"], "format", 1, ()),
        (["q", "a", "b"], "won", 3, ("a", "b", ".")),
    ],
)
def test_how_a_play_ends(table, texts, end, turns, answers):
    one = table(["ab"], stop=())
    (found,) = one.player.play(one.examples(), in_turn(*texts))
    assert (found.episode.end, found.episode.turns, found.episode.seen) == (end, turns, answers)
    assert found.episode.invalid == ("q" in texts)  # the world does not admit it, answers, and goes on
    assert found.episode.admitted == tuple(text != "q" for text in texts[: len(answers)])


def test_limits_cut_a_play_and_say_which(table):
    one = table(["ab"], prompt_tokens=37)  # the task and "a\nprinted:\nb\n": 25 + 13 tokens
    (found,) = one.player.play(one.examples(), always("a"))
    assert (found.episode.end, found.episode.turns) == ("prompt", 1)
    (found,) = one.player.play(one.examples(), lambda prompts: [said("aa", finished=False)])
    assert (found.episode.end, found.episode.turns, found.episode.left) == ("tokens", 1, (2,))


class Says(RolloutEngine):
    """Writes q, to prompts that are checked as ever."""

    def _generate(self, examples, n, *_):
        return [[said("q") for _ in range(n)] for _ in examples]


def in_validation(engine, player, asked, generator):
    metrics = ValidationMetrics(ValidationSettings(attempts=2))
    metrics.episodes(engine, SimpleNamespace(examples=asked), player, generator)
    assert metrics.compute()["val/episode/cut"] == 1
    return [row["turn"] for row in metrics.episode_rows if row["end"] == "prompt"]


def in_a_test(engine, player, asked, generator):
    ((found,),) = solve_by_play(engine, player, asked, 1, Sampling(), generator)
    assert not found.finished
    return [turn + 1 for turn in range(len(found.steps))]


def in_training(engine, player, asked, generator):
    rollout, draw = Rollout(num_generations=2), Draw(asked)
    rollout._generator = generator
    given = SimpleNamespace(datamodule=SimpleNamespace(player=player)), SimpleNamespace(engine=engine)
    (group,) = rollout._groups(asked, *given, draw)
    assert [one.end for one in group.episodes] == ["prompt"] * 2
    return [turn + 1 for turn in range(group.episodes[0].turns)]


@pytest.mark.parametrize("plays", [in_validation, in_a_test, in_training])
def test_a_play_that_outgrows_the_models_context_is_cut(table, plays):
    engine = Says(tiny_model(vocab_size=len(TOKENIZER)), TOKENIZER, (1,))
    engine.decoder.context = 25 + 2 * 13 + 4  # the task, two turns with their answers, and a response
    one = table(["ab"], turns=9)
    assert plays(engine, one.player, one.examples(), torch.Generator().manual_seed(0)) == [1, 2, 3]


def test_a_state_leaves_room_for_a_whole_step(table):
    one, room = table(["ab"], episode_tokens=5), 25 + 13 + 3  # what is left of the episode's would fit
    _, second = one.examples("srl_own")
    (state,), tokens = one.player.states([second], always("b"), room)
    assert (len(state.prompt_ids), state.max_new_tokens, tokens) == (25, 4, 2)


def test_the_last_turn_gets_what_is_left_of_an_episodes_tokens(table):
    one, asked = table(["abab"], episode_tokens=7), []

    def policy(prompts):
        asked.append([prompt.max_new_tokens for prompt in prompts])
        return by_heart(prompts)  # a letter and the line break

    (found,) = one.player.play(one.examples(), policy)
    assert asked == [[4], [4], [3], [1]]
    assert (found.episode.end, found.episode.won) == ("won", True)
    asked.clear()
    one.builder.limits = replace(one.builder.limits, episode_tokens=6)
    (found,) = one.player.play(one.examples(), policy)
    assert asked == [[4], [4], [2]]
    assert (found.episode.end, found.episode.cut, found.episode.turns) == ("episode", True, 3)
    one.builder.limits = replace(one.builder.limits, episode_tokens=5)
    (found,) = one.player.play(
        one.examples(), lambda prompts: [said("a", finished=prompts[0].max_new_tokens > 1)]
    )
    assert (found.episode.end, found.episode.cut, found.episode.turns) == ("episode", True, 3)


def test_a_play_whose_process_dies_is_counted_said_and_left_out_of_its_group(table, caplog):
    one = table(["aa", "ab"])

    letters = iter("a!aa" + "a" * 20)  # of the first task's two plays one is lost at its first turn

    def policy(prompts):
        return [said(next(letters)) for _ in prompts]

    groups, lost_tokens = one.player.groups(one.examples(), 2, policy)
    assert [len(group.episodes) for group in groups] == [1, 2]
    assert (one.player.lost, lost_tokens) == (1, 2)  # "!" and the line break
    assert [len(rollout) for rollout in groups[0].rollouts] == [2]
    one.player.groups(one.examples(), 1, always("!"))
    assert dict(one.player.worlds.lost) == {"died": 3}
    (said_once,) = [message for message in caplog.messages if "a play was lost" in message]
    assert "Letters:0 aa: a play was lost (died: its process died, exit status 3)" in said_once


@pytest.mark.parametrize(("shown", "shortened"), [(20, 0), (4, 0), (3, 1), (1, 3), (0, 4)])
def test_turns_whose_prompt_leaves_out_earlier_ones_are_counted(table, shown, shortened):
    one, prompts = table(["ab"], context_turns=shown, turns=5), []

    def policy(asked):
        prompts.extend(TOKENIZER.decode(prompt.prompt_ids) for prompt in asked)
        return [said("b") for _ in asked]

    (found,) = one.player.play(one.examples(), policy)
    assert [text.count("printed:") for text in prompts] == [min(k, shown) for k in range(5)]
    assert (found.episode.turns, found.episode.shortened) == (5, shortened)


def test_states_of_own_play_ask_for_what_the_expert_does_there(table):
    one = table(["abb"], context_turns=1)
    steps = one.examples("srl_own")
    assert [example.step for example in steps] == [1, 2, 3]
    states, tokens = one.player.states(steps, always("b"))
    assert [state.target for state in states] == ["a", "a", "a"]  # it never gets away from the first letter
    shown = [TOKENIZER.decode(state.prompt_ids).partition("shown: a\n")[2] for state in states]
    assert shown == ["", *["b\nprinted:\na\n"] * 2]
    assert tokens == 2 * (0 + 1 + 2)  # "b" and the line break, each turn
    states, _ = one.player.states(steps, in_turn("a", "y"))
    assert [state.target for state in states] == ["a", "b", "b"]  # behind y the expert knows no way
    assert [state.key for state in states] == [example.key for example in steps]
    one.builder.limits = replace(one.builder.limits, episode_tokens=5)  # of a play; a step has its own
    states, tokens = one.player.states(steps, always("b"))
    assert [state.max_new_tokens for state in states] == [4, 4, 4]
    assert tokens == 2 * (0 + 1 + 2)


def test_a_world_without_an_expert_gives_no_states_and_that_is_said_once(table, caplog):
    bare, whole = rows(["ya", "ab"])
    one = table([], expert=[bare | {"steps": []}, whole], turns=2, min_steps=0)
    for _ in range(2):
        states, _ = one.player.states(one.examples("srl_own"), always("y"))
        assert [None if state is None else state.target for state in states] == [None, None, "a", "a"]
    assert one.player.lost == 0
    (message,) = caplog.messages
    assert message == (
        f"world {CLASS}:0 ya: in 2 of 4 plays the expert knows no way from the beginning, so that there "
        "is nothing to compare with: train on another objective than srl_own, or give worlds with an expert"
    )


def test_progress_without_an_expert_is_said_once(table, caplog):
    bare, whole = rows(["ya", "ab"])
    one = table([], expert=[bare | {"steps": []}, whole], turns=2, min_steps=0)
    one.player.groups(one.examples("episode"), 2, always("y"))
    assert caplog.messages == [], "an episode is compared with nobody"
    for _ in range(2):
        one.player.groups(one.examples("progress"), 2, always("y"))
    (message,) = caplog.messages
    assert message.startswith(
        f"world {CLASS}:0 ya: in 2 of 4 plays the expert knows no way from the beginning"
    )
    assert "train on another objective than progress" in message


def test_plays_that_nobody_recorded_have_a_state_at_each_turn(table):
    """Two of them; the third turn of a play of two is its first again. Recorded ones keep their steps."""
    bare, whole = rows(["ab", "ba"])
    one = table([], expert=[bare | {"steps": []}, whole], turns=3, min_steps=0)
    steps = one.examples("srl_own")
    assert [(example.uid, example.step) for example in steps] == [
        *((bare["uid"], turn) for turn in (1, 2, 3)), *((whole["uid"], step) for step in (1, 2)),
    ]  # fmt: skip
    states, _ = one.player.states(steps, by_heart)
    assert [state.target for state in states] == ["a", "b", "a", "b", "a"]
    assert [state.key for state in states] == [example.key for example in steps]
    assert states[2].prompt_ids == states[0].prompt_ids != states[1].prompt_ids
    states, _ = one.player.states(steps, always("b"))
    assert [state.target for state in states] == ["a", "a", "a", "b", "a"]


def test_prompts_without_observations_are_refused(table):
    with pytest.raises(ConfigError, match=r"objective episode plays, but data.prompt.context_turns is null"):
        table(["ab"], context_turns=None).examples()


def test_a_waiting_group_of_episodes_comes_back_bit_for_bit(table):
    one = table(["ab"])
    ((group,), _) = one.player.groups(one.examples(), 3, always("a"))
    group.rewards, group.credits = torch.rand(3), torch.rand(len(group.completions))
    file = BytesIO()
    torch.save(group.state_dict(), file)
    file.seek(0)
    again = Group.from_state(torch.load(file, weights_only=True))
    assert (again.example, again.episodes) == (group.example, group.episodes)
    assert torch.equal(again.credits, group.credits)
    assert torch.equal(again.rewards, group.rewards)
    for mine, theirs in zip(again.completions, group.completions, strict=True):
        assert (mine.ids, mine.prompt_ids, mine.text) == (theirs.ids, theirs.prompt_ids, theirs.text)


# -- what is trained --------------------------------------------------------------------------------------


def gradient(model, rows, share):
    model.zero_grad()
    for micro in micro_batches(rows, 10_000, share):
        head = model.get_output_embeddings()
        new = logprobs_of(model.model, head, micro, len(TOKENIZER))
        loss_of(new, micro, LossSettings())[0].backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def test_a_turn_is_sampled_and_trained_on_its_own_history_and_answers_are_no_targets(table):
    one = table(["ab" * 2, "ba" * 2], turns=4)
    model = tiny_model(vocab_size=len(TOKENIZER))
    engine = RolloutEngine(model, TOKENIZER, (1,))
    generator = torch.Generator().manual_seed(0)
    drawn = iter(range(1000))

    def policy(prompts):
        """The model writes; its text is then read as a letter, so that plays have several turns."""
        made = [c for (c,) in engine.generate(prompts, 1, Sampling(), generator)]
        return [
            Completion(c.ids, "aby"[next(drawn) % 3], c.logprobs, True) for c in made
        ]  # what a world answers hangs on the text, what is trained on the tokens

    groups, _ = one.player.groups(one.examples(), 3, policy)
    turns = [turn for group in groups for turn in group.completions]
    assert len(turns) > 12
    for turn in turns:
        expected = plain_logprobs(model, turn.prompt_ids, turn.ids)
        torch.testing.assert_close(turn.logprobs, expected, atol=1e-4, rtol=0)
    for group in groups:
        group.rewards = torch.arange(len(group.episodes), dtype=torch.float32)
    rows = build_rows(groups, LossSettings())
    (micro,) = micro_batches(rows, 10_000)
    assert micro.targets.tolist() == [token for row in micro.rows for token in row.action_ids]
    assert sorted(row.action_ids for row in rows) == sorted(
        turn.ids for group in groups for rollout in (group.rollouts[0], group.rollouts[2]) for turn in rollout
    )  # the middle reward has advantage 0
    assert len(micro.trees) == 2  # the prompts of a task's turns stand in one row, each shared part once
    shared, alone = gradient(model, rows, True), gradient(model, rows, False)
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-4)


def test_readable_rows_of_an_episode(table):
    one = table(["ab"])
    ((group,), _) = one.player.groups(one.examples(), 1, in_turn("q", "a", "b"))
    shown = [(row["turn"], row["action"], row["answer"], row["left"], row["end"]) for row in turn_rows(group)]
    assert shown == [(1, "q", "a", 2, "won"), (2, "a", "b", 2, "won"), (3, "b", ".", 1, "won")]
    assert figures(group.episodes)["episodes/invalid"] == [1 / 3]
