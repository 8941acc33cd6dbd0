"""Solutions cut into steps, and JSONL read: what is a step, what never is, and every bad input."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make import from_rows, read_trajectories

from srl.data.load import DataReport, load_trajectories
from srl.data.row_format import RowFormat
from srl.data.styles.source import StepSplit
from srl.data.styles.split import split_steps
from srl.data.trajectory import Skip, Step, Trajectory
from srl.errors import ConfigError, DataError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")
GSM8K = RowFormat(
    problem="question", solution="answer", style="lines", remove=r"<<[^>]*>>", answer_marker="####"
)
NUMINA = RowFormat(problem="question", uid="id")


def heads(solution: str) -> list[tuple[str, str]]:
    return [(step.title, step.body) for step in split_steps(solution).steps]


# --- the numbered style -----------------------------------------------------------------------------------


def test_titled_steps_with_preamble_and_conclusion() -> None:
    split = split_steps(
        "Let $x$ be it.\n\n1. **Add**:\n   1 + 1 = 2\n\n   so 2\n2. **Double:** 4\n\n"
        "The final answer is \\(\\boxed{4}\\)\n"
    )
    assert split.preamble == "Let $x$ be it."
    assert split.steps == (Step(1, "Add", "   1 + 1 = 2\n\n   so 2"), Step(2, "Double", "4"))
    assert split.conclusion == "The final answer is \\(\\boxed{4}\\)"


@pytest.mark.parametrize(
    ("line", "title", "body"),
    [
        ("**A**:", "A", ""),
        ("**A:**", "A", ""),
        ("**A** B", "A", "B"),
        ("**A** b", "", "**A** b"),
        ("**A = 5**, so b", "", "**A = 5**, so b"),
        ("**A** $= 5$", "", "**A** $= 5$"),
        ("**A.** b", "A.", "b"),
        ("**A**: b", "A", "b"),
        ("**Find $\\frac{a}{b}$ at $x_1 = 2$:** b", "Find $\\frac{a}{b}$ at $x_1 = 2$", "b"),
        ("b", "", "b"),
        ("b **c** d", "", "b **c** d"),
        ("**b", "", "**b"),
        ("****", "", "****"),
    ],
)
def test_headers(line: str, title: str, body: str) -> None:
    assert heads(f"1. {line}\n2) {line}") == [(title, body)] * 2


def test_a_bold_number_is_a_header() -> None:
    assert heads("**1. A**: b\nc\n\n**2. D**\ne") == [("A", "b\nc"), ("D", "e")]


def test_windows_and_old_mac_line_ends_are_line_ends() -> None:
    unix = "a\n1. **A**:\n   b\n2. **C**:\n   d\n\ne"
    assert (
        split_steps(unix.replace("\n", "\r\n")) == split_steps(unix.replace("\n", "\r")) == split_steps(unix)
    )


@pytest.mark.parametrize(
    "nested",
    [
        "3.14 is near pi",
        "2.5 is more",
        "2.",
        "2.x",
        "1984. was a year",
        "5. does not count on",
        "   2. indented",
        "\t2. indented",
        "- 2. in a list",
        "```\n2. code\n3. code\n```",
        "~~~~python\n2. code\n~~~\n2. still code\n~~~~",
        "\\begin{enumerate}\n2. x\n\\begin{align}\n2. y\n\\end{align}\n2. z\n\\end{enumerate}",
        "\\[\n2. \\times 3 \\\\[2pt]\n2. x\n\\]",
        "$$\n2. x\n$$",
        "   1. a\n   2. b\n   3. c",
    ],
)
@pytest.mark.parametrize("title", ["", "**T**: "])
def test_never_a_step(nested: str, title: str) -> None:
    found = heads(f"1. {title}a\n{nested}\n2. {title}b")
    assert found == [(title[2:3], f"a\n{nested}"), (title[2:3], "b")]


def test_what_is_opened_and_never_closed_hides_nothing() -> None:
    # seen in OpenThoughts: a code fence opened in step 5 of 7 and never closed
    for opener in ("```", "\\[", "$$", "\\begin{align}"):
        assert len(heads(f"1. a\n{opener}\nx\n2. b\n3. c")) == 3, opener
    # display math holds no blank line
    assert len(heads("1. a $$\n\n2. b\n\n3. c $$ d\n4. e")) == 4
    assert len(heads("1. a \\[\n\n2. b\n\n3. c \\] d\n4. e")) == 4


def test_given_conditions_before_titled_steps_are_preamble() -> None:
    split = split_steps("Given:\n1. $x > 0$\n2. $y > 0$\n\n1. **A**:\n   a\n2. **B**:\n   b")
    assert split.preamble == "Given:\n1. $x > 0$\n2. $y > 0$"
    assert [step.title for step in split.steps] == ["A", "B"]


def test_a_plain_list_between_titled_headers_belongs_to_its_step() -> None:
    assert heads("1. **A**:\n1. a\n2. b\n3. c\n2. **B**:\nd") == [("A", "1. a\n2. b\n3. c"), ("B", "d")]


def test_headers_with_and_without_title_may_mix() -> None:
    assert heads("1. a\n2. **B**: b\n3. c") == [("", "a"), ("B", "b"), ("", "c")]
    assert heads("1. **A**: a\n2. b\n3. **C**: c") == [("A", "a"), ("", "b"), ("C", "c")]


@pytest.mark.parametrize("title", ["", "**T**: "])
def test_a_restarted_list_counts_on(title: str) -> None:
    second = f"1. {title}c\n2. {title}d\n3. {title}e"
    split = split_steps(f"1. {title}a\n2. {title}b\n\n**Part (b)**\n\n{second}\n\nSo 4.")
    assert [step.body for step in split.steps] == ["a", "b\n\n**Part (b)**", "c", "d", "e"]
    assert [step.index for step in split.steps] == [1, 2, 3, 4, 5]
    assert split.conclusion == "So 4."


@pytest.mark.parametrize(
    "between",
    [
        "",
        "So the answer is 4.\n\n",
        "**Solution 2:**\n",
        "Another way:\n",
        "We turn it. " * 30 + "\n",
    ],
)
def test_a_restart_after_the_answer_or_much_text_ends_the_steps(between: str) -> None:
    split = split_steps(f"1. **A**: a\n2. **B**: b\n\n{between}1. **C**: c\n2. **D**: d")
    assert len(split.steps) == (2 if between else 4)
    one = split_steps(f"1. **A**: a\n2. **B**: b\n\n{between}1. **C**: c")
    assert len(one.steps) == 2  # one header is no list


def test_a_titled_header_that_does_not_count_on_ends_the_steps() -> None:
    split = split_steps("1. **A**: a\n2. **B**: b\n4. **D**: d")
    assert (len(split.steps), split.conclusion) == (2, "4. **D**: d")


def test_a_single_header_gives_way_to_a_list_of_two() -> None:
    split = split_steps("1. **Idea**: x\n\n1. **A**: a\n2. **B**: b")
    assert (split.preamble, [step.title for step in split.steps]) == ("1. **Idea**: x", ["A", "B"])


def test_an_untitled_list_in_a_long_solution_enumerates_conditions() -> None:
    conditions = "We know:\n1. x + y = 10\n2. xy = 20\n\n"
    assert len(split_steps(conditions + "We add the two. " * 18).steps) == 2  # 288 characters: not long
    split = split_steps(conditions + "We add the two. " * 30)  # 480 characters outside of a list of 23
    assert split.steps == ()
    titled = conditions.replace("1. x", "1. **A** x") + "We add the two. " * 30
    assert len(split_steps(titled).steps) == 2  # a title says that it is a step


@pytest.mark.parametrize(
    ("tail", "body", "conclusion"),
    [
        ("b\n\nSo 4.", "b", "So 4."),
        ("b\n\n   still b\n\nSo 4.\n\nDone.", "b\n\n   still b", "So 4.\n\nDone."),
        ("b\nstill b", "b\nstill b", ""),
        ("\n\nb, unindented\n\nSo 4.", "b, unindented", "So 4."),  # the first paragraph is the body
        ("b\n### Conclusion\n4", "b", "### Conclusion\n4"),
        ("b\n\n```\n\ncode\n```\n", "b", "```\n\ncode\n```"),
        ("b\n   ```\n\ncode\n   ```", "b\n   ```\n\ncode\n   ```", ""),
        ("b\n\n#hashtag", "b", "#hashtag"),
    ],
)
def test_the_conclusion(tail: str, body: str, conclusion: str) -> None:
    split = split_steps(f"1. **A**: a\n\nunindented a\n\n2. **B**: {tail}")
    assert [step.body for step in split.steps] == ["a\n\nunindented a", body]
    assert split.conclusion == conclusion


@pytest.mark.parametrize("solution", ["", "\n \n", "No steps here.\n3.14", "2. b\n3. c", "  1. a\n  2. b"])
def test_without_steps_all_is_preamble(solution: str) -> None:
    assert split_steps(solution) == StepSplit(solution.strip(), (), "")


def test_lines_style() -> None:
    split = split_steps(" a \r\n\n1. **B**: b\n\t\nc", style="lines")
    assert split == StepSplit("", (Step(1, "", "a"), Step(2, "", "1. **B**: b"), Step(3, "", "c")), "")


def test_unknown_style_lists_the_styles() -> None:
    with pytest.raises(ValueError, match=r"'haiku'.*numbered, headings, lines"):
        split_steps("a", style="haiku")


PIECE = st.sampled_from(
    ["1. ", "2. ", "3. ", "**", "T", ":", "\n", "\n\n", "   ", "```", "$$", "\\[", "\\]", "# ", "\\begin{a}"]
    + ["\\end{a}", "1) ", "\r\n", "1. **A**: a\n", "2. **B**: b\n", "3. c\n", "\\\\["]
)


def plain(text: str) -> str:
    """The text without what a header may lose: numbers of steps, asterisks, colons, white space."""
    return re.sub(r"[\s*:]|[0-9]+[.)]", "", text)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECE, max_size=25).map("".join))
def test_nothing_is_lost_and_steps_count_up(solution: str) -> None:
    split = split_steps(solution)
    assert [step.index for step in split.steps] == list(range(1, len(split.steps) + 1))
    parts = [split.preamble, *(step.title + "\n" + step.body for step in split.steps), split.conclusion]
    assert plain("\n".join(parts)) == plain(solution)
    for step in split.steps:
        assert step.text == step.text.rstrip()
        assert step.text[:1].strip() or not step.text


@pytest.mark.parametrize(
    "solution",
    [
        "1. " + "a" * 10**6,
        "1." + " " * 10**6,
        "9" * 10**6 + ". a",
        "1. **" + "a*" * 500_000,
        "**1. " + "*" * 10**6,
        "1. a\n" * 100_000,
        "1. **a**\n" * 50_000,
        "1. **a**\n" + "2. b\n" * 100_000,
        "\\begin{" * 140_000,
        "\\begin{a}\n" * 50_000 + "\\end{b}\n" * 50_000,
        "$$\n" * 100_000,
        "```\n" * 100_000,
        "`" * 10**6 + "\n1. a",
        "\n" * 300_000,
        "\\" * 10**6,
    ],
    ids=lambda text: repr(text[:9]),
)
def test_long_texts_take_linear_time(solution: str) -> None:
    begin = time.process_time()
    split_steps(solution)
    assert time.process_time() - begin < 4.0


# --- trajectories and JSON --------------------------------------------------------------------------------


def test_step_text() -> None:
    assert Step(2, "A", "b").text == "2. **A**:\nb"
    assert Step(2, "A", "").text == "2. **A**:"
    assert Step(2, "", "b").text == "b"


def test_solution_joins_what_is_not_empty() -> None:
    steps = (Step(1, "A", "a"), Step(2, "", "b"))
    assert Trajectory("u", "p", "", steps, None).solution == "1. **A**:\na\nb"
    assert Trajectory("u", "p", "x", steps, None, "y").solution == "x\n1. **A**:\na\nb\ny"


ROW: dict[str, Any] = {"uid": "u", "problem": "p", "steps": ["a", {"title": "B", "body": "b"}], "answer": "4"}


def test_from_json_with_the_least() -> None:
    row = {"problem": "p", "steps": [" a\n", {"title": " B ", "body": "  b\n"}], "answer": None, "other": [1]}
    expected = Trajectory("train-7", "p", "", (Step(1, "", "a"), Step(2, "B", "  b")), None)
    assert Trajectory.from_json(row, "dir/train.jsonl:7") == expected


def test_from_json_takes_null_for_what_may_be_missing() -> None:
    row = {**ROW, "preamble": None, "conclusion": None, "answer_check": None, "uid": None}
    row["steps"] = [{"title": None, "body": "a"}]
    assert Trajectory.from_json(row, "f.jsonl:1") == Trajectory("f-1", "p", "", (Step(1, "", "a"),), "4")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(4, "4"), (27.0, "27"), (0.5, "0.5"), (-3, "-3"), ("x", "x"), (None, None), ("", None), (" ", None)],
)
def test_answers_become_strings(answer: object, expected: str | None) -> None:
    assert Trajectory.from_json({**ROW, "answer": answer}, "f:1").answer == expected


WORD = st.text(min_size=1, max_size=12).map(str.strip).filter(bool)
TEXT = st.text(max_size=20)
STEPS = st.lists(st.tuples(WORD | st.just(""), WORD), max_size=4).map(
    lambda pairs: tuple(Step(k, title, body) for k, (title, body) in enumerate(pairs, 1))
)
TRAJECTORY = st.builds(
    Trajectory, WORD, WORD, TEXT, STEPS, WORD | st.none(), TEXT, st.sampled_from(["math", "exact"]),
    references=st.lists(st.lists(WORD, max_size=3).map(tuple), max_size=2).map(tuple),
)  # fmt: skip


@given(TRAJECTORY)
def test_json_round_trip(trajectory: Trajectory) -> None:
    line = trajectory.to_json()
    assert "\n" not in line
    assert Trajectory.from_json(json.loads(line), "f:1") == trajectory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": ...}, 'no field "problem" \\(the row has: uid, steps, answer\\)'),
        ({"problem": " "}, 'field "problem" is blank'),
        ({"problem": 5}, 'field "problem" is the number 5; write a string'),
        ({"problem": "\ud800"}, "half a surrogate pair"),
        ({"steps": "a"}, "field \"steps\" is the string 'a'; write a list"),
        ({"steps": [5]}, r'field "steps\[0\]" is the number 5'),
        ({"steps": ["a", " "]}, r'field "steps\[1\]" is blank'),
        ({"steps": [{"title": "A"}]}, r'steps\[0\]: no field "body"'),
        ({"steps": [{"title": 5, "body": "a"}]}, r'steps\[0\]: field "title" is the number 5'),
        ({"steps": [{"title": "A", "body": None}]}, r'field "steps\[0\].body" is null'),
        ({"answer": True}, 'field "answer" is the boolean True'),
        ({"answer": [4]}, r'field "answer" is the list \[4\]'),
        ({"answer": float("nan")}, 'field "answer" is the number nan'),
        ({"preamble": 5}, 'field "preamble" is the number 5'),
        ({"conclusion": {}}, 'field "conclusion" is the object {}'),
        (
            {"answer_check": "fuzzy"},
            "field \"answer_check\" is the string 'fuzzy'; write one of: math, exact",
        ),
        ({"answer_check": 5}, 'field "answer_check" is the number 5'),
        ({"uid": ""}, "field \"uid\" is the string ''"),
        ({"uid": [1]}, r'field "uid" is the list \[1\]'),
        (
            {"references": ["a"]},
            r"field \"references\" is the list \['a'\]; write a list of further solutions",
        ),
        ({"references": [["a"], ["b", " "]]}, r'field "references\[1\]\[1\]" is blank'),
    ],
)
def test_a_bad_row_is_named(change: dict[str, object], message: str) -> None:
    row = {key: value for key, value in {**ROW, **change}.items() if value is not ...}
    with pytest.raises(DataError, match=f"^train.jsonl:3: .*{message}"):
        Trajectory.from_json(row, "train.jsonl:3")


# --- raw rows ---------------------------------------------------------------------------------------------


def test_gsm8k_row() -> None:
    row = {"question": "How many?", "answer": "2*3 = <<2*3=6>>6 clips.\r\n6+1 = <<6+1=7>>7.\r\n#### 7"}
    (found,), skipped = from_rows([("train.jsonl:1", row)], GSM8K)
    steps = (Step(1, "", "2*3 = 6 clips."), Step(2, "", "6+1 = 7."))
    assert found == Trajectory("train-1", "How many?", "", steps, "7", "#### 7")
    assert skipped == []


def test_the_last_marker_gives_the_answer_and_no_marker_none() -> None:
    row = {"question": "q", "answer": "#### 1\na\n#### 2\r\nafterword"}
    trajectory = GSM8K.read(row, "f:1")
    assert (trajectory.answer, trajectory.conclusion) == ("2", "#### 2\nafterword")
    assert [step.body for step in trajectory.steps] == ["#### 1", "a"]
    assert GSM8K.read({"question": "q", "answer": "a\nb"}, "f:1").answer is None


def test_a_marker_after_numbered_steps_joins_the_conclusion() -> None:
    row = {"problem": "q", "solution": "1. **A**: a\n2. **B**: b\n\nSo 4.\n#### 4"}
    trajectory = RowFormat(answer_marker="####").read(row, "f:1")
    assert (trajectory.conclusion, trajectory.answer) == ("So 4.\n#### 4", "4")


def test_row_format_names_fields() -> None:
    row = {"q": "p", "s": "a\nb", "a": 4, "id": 12, "answer_check": "exact"}
    row_format = RowFormat(problem="q", solution="s", answer="a", uid="id", style="lines")
    trajectory = row_format.read(row, "f:1")
    assert (trajectory.uid, trajectory.problem, trajectory.answer) == ("12", "p", "4")
    assert trajectory.answer_check == "exact"
    assert RowFormat(problem="q", solution="s", answer="", style="lines").read(row, "f:1").answer is None


def test_a_row_with_steps_is_expert_jsonl_whatever_the_format() -> None:
    assert GSM8K.read(ROW, "f:1") == Trajectory.from_json(ROW, "f:1")


def test_a_raw_row_without_its_fields_is_named() -> None:
    with pytest.raises(DataError, match=r'^f:1: no field "solution" \(the row has: problem\)'):
        RowFormat().read({"problem": "p"}, "f:1")
    with pytest.raises(DataError, match=r'^f:1: field "solution" is the number 5'):
        RowFormat().read({"problem": "p", "solution": 5, "answer": None}, "f:1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": "haiku"}, "style is 'haiku'; write one of: numbered, headings, lines"),
        ({"remove": "<<["}, "remove is '<<\\['"),
        ({"answer_marker": " "}, "answer_marker is blank"),
    ],
)
def test_a_bad_row_format_is_named(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RowFormat(**arguments)


# --- files ------------------------------------------------------------------------------------------------


def line(**change: object) -> bytes:
    return json.dumps({**ROW, **change}).encode() + b"\n"


def test_too_few_steps_are_skipped_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    raw = {"problem": "p", "solution": "Just see it.", "answer": "4"}
    null = {"problem": "p", "solution": None, "answer": "4"}
    path.write_bytes(
        line() + line(uid="v", steps=["a"]) + b"\n".join(json.dumps(row).encode() for row in (raw, null))
    )
    found, skipped = read_trajectories(path)
    assert [trajectory.uid for trajectory in found] == ["u"]
    assert skipped == [
        Skip(f"{path}:2", "v", "1 step given, 2 or more needed"),
        Skip(f"{path}:3", "train-3", "0 steps found by style 'numbered', 2 or more needed"),
        Skip(f"{path}:4", "train-4", "0 steps found by style 'numbered', 2 or more needed"),
    ]


def test_byte_order_mark_windows_ends_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n") + b"\r\n \n" + line(uid="v", problem="a\u2028b")
    )
    found, _ = read_trajectories(str(path))
    assert [(trajectory.uid, trajectory.problem) for trajectory in found] == [("u", "p"), ("v", "a\u2028b")]


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        (b"", "", "the file is empty"),
        (b"\n \n", "", "the file is empty"),
        (b"\xef\xbb\xbf", "", "the file is empty"),
        (line() + b'{"uid": "v", "prob', ":2", "not JSON .*write one whole JSON object a line"),
        (line() + b"problem: p\n", ":2", "not JSON"),
        (b"[" * 100_000, ":1", "not JSON"),
        (b"1" * 5000, ":1", "not JSON|not an object"),
        (line() + b"[1]\n", ":2", r"the list \[1\] is not an object"),
        (line() + b"null\n", ":2", "null is not an object"),
        (line() + b'{"problem": "caf\xe9"}\n', ":2", "not UTF-8 .byte 16"),
        ("{}".encode("utf-16"), ":1", "not UTF-8"),
        (line() + line(), ":2", "uid 'u' was used at .*train.jsonl:1"),
        (line() + b"\n" + line(uid="v", problem=""), ":3", 'field "problem" is blank'),
    ],
)
def test_a_bad_file_is_named_with_the_line(tmp_path: Path, content: bytes, where: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path) + where)}: .*(?:{message})"):
        load_trajectories(str(path), RowFormat(), DataReport())


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.jsonl: no such file; check the path"):
        read_trajectories(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="is a folder, and not one of save_to_disk; name the file in it"):
        read_trajectories(tmp_path)


def test_rows_that_share_their_place_are_still_told_apart() -> None:
    with pytest.raises(DataError, match="uid 'u' was used at hub"):
        from_rows([("hub", ROW), ("hub", ROW)])


def test_written_trajectories_read_back(tmp_path: Path) -> None:
    steps = (Step(1, "A", "a\u2028é"), Step(2, "", "b"))
    trajectories = [
        Trajectory("1", "p\n", "x", steps, "4", "y"),
        Trajectory("2", "p", "", steps, None, "", "exact"),
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f"{one.to_json()}\n" for one in trajectories))
    assert read_trajectories(path) == (trajectories, [])


# --- real solutions ---------------------------------------------------------------------------------------


@real_data
def test_numinamath() -> None:
    path = DATA / "steps" / "numina_amc_aime.jsonl"
    found, skipped = read_trajectories(path, NUMINA)
    assert len(found) + len(skipped) == 1181
    titled = [row for row in map(json.loads, path.open()) if re.search(r"(?m)^1\. \*\*", row["solution"])]
    ids = {trajectory.uid for trajectory in found}
    assert len(titled) == 1016
    assert all(row["id"] in ids for row in titled)  # 95 % are asked for
    assert len(found) >= 1035  # and most of the untitled lists that are solutions
    second = re.compile(r"(?m)^\d+[.)]\s+\*\*")
    glued = [t.uid for t in found for step in t.steps if second.search(step.body)]
    assert glued == []


@real_data
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("numina_amc_aime", 1035),
        ("openthoughts_olympiads", 48),
        ("reasoning_gym_responses", 105),
        ("zeroeval_math_l5", 70),
        ("deepseek_r1_traces", 2),
    ],
)
def test_nothing_is_lost_on_real_solutions(name: str, least: int) -> None:
    n_split = 0
    for row in map(json.loads, (DATA / "steps" / f"{name}.jsonl").open()):
        solution = row["solution"] or ""
        split = split_steps(solution)
        n_split += len(split.steps) >= 2
        parts = [split.preamble, *(step.title + "\n" + step.body for step in split.steps), split.conclusion]
        assert plain("\n".join(parts)) == plain(solution), row["id"]
    assert n_split >= least


@real_data
def test_a_conclusion_is_not_glued_to_the_last_step() -> None:
    first = json.loads((DATA / "steps" / "numina_amc_aime.jsonl").open().readline())
    split = split_steps(first["solution"])
    assert [step.title for step in split.steps][-1] == "Calculate $(p + q)r$"
    assert split.conclusion == "Thus, the value of $(p + q)r$ is $\\boxed{15}$."


@real_data
def test_gsm8k() -> None:
    found, skipped = read_trajectories(DATA / "gsm8k" / "train.jsonl", GSM8K)
    assert (len(found), skipped) == (7473, [])
    assert all(trajectory.answer and "<<" not in trajectory.solution for trajectory in found)
    assert not any(step.body.startswith("####") for trajectory in found for step in trajectory.steps)
    first = found[0]
    assert [step.text for step in first.steps] == [
        "Natalia sold 48/2 = 24 clips in May.",
        "Natalia sold 48+24 = 72 clips altogether in April and May.",
    ]
    assert (first.uid, first.answer, first.conclusion) == ("train-1", "72", "#### 72")
