"""The step styles beside `numbered`, `auto`, and the round trip: the pieces of a split are the text."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srl.data.styles.source import plain
from srl.data.styles.split import STYLES, split_steps

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")


def heads(text: str, style: str) -> list[tuple[str, str]]:
    return [(step.title, step.body) for step in split_steps(text, style).steps]


# --- headings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "title", "body"),
    [
        ("## Step {}: Add it", "Add it", "x"),
        ("#### Step {} - Add it ##", "Add it", "x"),
        ("### **Step {}: Add it**", "Add it", "x"),
        ("**Step {}: Add it** y", "Add it", "y\nx"),
        ("**Step {}:** Add it", "", "Add it\nx"),
        ("**Step {}**: Add it", "", "Add it\nx"),
        ("Step {}: Add it", "", "Add it\nx"),
        ("STEP {}. Add it", "", "Add it\nx"),
        ("## Step {}", "", "x"),
    ],
)
def test_counted_headings(line: str, title: str, body: str) -> None:
    text = "Before.\n" + "\n\n".join(line.format(k) + "\nx" for k in (1, 2, 3))
    split = split_steps(text, "headings")
    assert split.preamble == "Before."
    assert [(step.title, step.body) for step in split.steps] == [(title, body)] * 3
    assert [step.index for step in split.steps] == [1, 2, 3]


def test_number_words_count_and_prose_about_steps_does_not() -> None:
    assert heads("Step One: a\nStep Two: b", "headings") == [("", "a"), ("", "b")]
    assert heads("Step 1 gives x.\nStep 2 gives y.", "headings") == []
    assert heads("  Step 1: a\n  Step 2: b", "headings") == []


def test_a_step_without_text_is_named_after_its_number() -> None:
    assert heads("## Step 1\n## Step 2: B\nb", "headings") == [("Step 1", ""), ("B", "b")]


def test_a_heading_of_odd_white_space_is_no_title_that_a_file_would_lose() -> None:
    text = "### Step 1: a\nb\n\n### Step 2: \x0b\rc\nd\n### Step 3: \x0c:\x85"
    assert heads(text, "headings") == [("a", "b"), ("", "c\nd"), ("Step 3", "")]


def test_counted_headings_win_over_others_and_end_at_a_conclusion() -> None:
    text = "## Idea\n### Step 1: A\n#### Aside\na\n### Step 2: B\nb\n### Conclusion\nSo 4."
    split = split_steps(text, "headings")
    assert split.preamble == "## Idea"
    assert [(s.title, s.body) for s in split.steps] == [("A", "#### Aside\na"), ("B", "b")]
    assert split.conclusion == "### Conclusion\nSo 4."


def test_a_restart_of_the_count_counts_on() -> None:
    split = split_steps("## Step 1: A\na\n## Step 2: B\nb\n## Step 1: C\nc\n## Step 2: D", "headings")
    assert [(step.index, step.title) for step in split.steps] == [(1, "A"), (2, "B"), (3, "C"), (4, "D")]
    single = split_steps("## Step 1: A\na\n## Step 2: B\nb\n## Step 1: C\nc", "headings")
    assert single.conclusion == "## Step 1: C\nc"


@pytest.mark.parametrize("word", ["So,", "Thus", "Therefore,", "Hence", "**Finally**,", "In conclusion,"])
def test_the_closing_sentence_is_no_part_of_the_last_step(word: str) -> None:
    text = f"### Step 1: A\na\n\n### Step 2: B\nb\n\nmore\n\n{word} we get $x = 4$.\n"
    split = split_steps(text, "headings")
    assert (split.steps[1].body, split.conclusion) == ("b\n\nmore", f"{word} we get $x = 4$.")
    alone = split_steps(f"### Step 1: A\na\n\n### Step 2: B\n\n{word} we get $x = 4$.", "headings")
    assert (alone.steps[1].body, alone.conclusion) == (f"{word} we get $x = 4$.", "")
    inner = split_steps(f"### Step 1: A\na\n\n{word} b\n\n### Step 2: B\nc\n\nd", "headings")
    assert inner.conclusion == ""


@pytest.mark.parametrize("math", ["\\( x = 5 \\)", "\\(\nx = 5\n\\).", "$x = 5$,", "\\[ x = 5 \\]"])
def test_math_of_its_own_paragraph_goes_on_with_the_one_before(math: str) -> None:
    split = split_steps(f"We have\n\n{math}\n\nThen y is.\n\n\\(y\\) is odd.", "paragraphs")
    assert [step.body for step in split.steps] == [f"We have\n\n{math}", "Then y is.", "\\(y\\) is odd."]


def test_lines_inside_inline_math_begin_no_step() -> None:
    text = "1. **A**: \\(a\n2. **no**: b\\)\n2. **B**: c"
    assert heads(text, "numbered") == [("A", "\\(a\n2. **no**: b\\)"), ("B", "c")]


def test_a_power_in_a_title_is_no_bold() -> None:
    two = "Step 1: isolate k**2\na\n### Step 2: so **k**\nb"
    assert heads(f"### {two}", "headings") == [("isolate k**2", "a"), ("so k", "b")]
    assert heads("**Step 1: find x**2:** a\n**Step 2: end** b", "headings") == [
        ("find x**2", "a"),
        ("end", "b"),
    ]
    assert heads("1. **Find x**3**: a\n2. **End**: b", "numbered") == [("Find x**3", "a"), ("End", "b")]


@pytest.mark.parametrize(
    ("line", "title", "body"),
    [
        ("Step {}: -3x = 6", "", "-3x = 6\nx"),
        ("Step {}. .5 + .5 = 1", "", ".5 + .5 = 1\nx"),
        ("Step {}) (a) holds", "", "(a) holds\nx"),
        ("Step {} - -x = 2", "", "-x = 2\nx"),
        ("Step {}—then", "", "then\nx"),
        ("**Step {}: -3x = 6**", "-3x = 6", "x"),
        ("### Step {}: Compute f(x)", "Compute f(x)", "x"),
        ("### Step {}: Compute f(x). ##", "Compute f(x)", "x"),
        ("### Step {}: And so on...", "And so on...", "x"),
        ("### Step {}: Learn C#:", "Learn C#", "x"),
        ("### Step {}: x_", "x_", "x"),
        ("## -{} is a root", "-{} is a root", "x"),
        ("## __init__", "__init__", "x"),
        ("## Part (a)", "Part (a)", "x"),
    ],
)
def test_signs_and_brackets_of_a_heading_are_kept(line: str, title: str, body: str) -> None:
    text = "\n\n".join(line.format(k) + "\nx" for k in (1, 2))
    assert heads(text, "headings") == [(title.format(k), body) for k in (1, 2)]


def test_a_marked_conclusion_ends_the_steps_too() -> None:
    split = split_steps("## A\na\n## B\nb\n## __Conclusion__\nc", "headings")
    assert (len(split.steps), split.conclusion) == (2, "## __Conclusion__\nc")


SIGNS = st.lists(
    st.sampled_from(["-", "3", "x", " ", "(", ")", ".", ":", "_", "**", "#"]), min_size=1, max_size=9
)


@settings(max_examples=300, deadline=None)
@given(
    begin=st.sampled_from(["## Step {}", "**Step {}", "Step {}", "##"]),
    mark=st.sampled_from([": ", ". ", ") ", " - ", " – ", "—"]),
    text=SIGNS.map("".join),
)
def test_only_markup_of_a_heading_is_in_neither_title_nor_body(begin: str, mark: str, text: str) -> None:
    mark = " " if begin == "##" else mark
    split = split_steps("\n".join(f"{begin.format(k)}{mark}{text}\nend" for k in (1, 2)), "headings")
    for step, piece in zip(split.steps, split.pieces[1:-1], strict=True):
        if step.title.startswith("Step "):
            continue  # named after its number
        bare, title, body = (part.replace("**", "") for part in (piece.rstrip(), step.title, step.body))
        left = rf"(#+\s+)?(Step \d\s*([:.)—]|[-–](?=\s))?)?\s*{re.escape(title)}[:\s]*\.?[:\s]*#*[:\s]*"
        assert re.fullmatch(left + re.escape(body), bare)


def test_a_bold_conclusion_ends_the_last_step() -> None:
    found = split_steps("Step 1: a\n\nStep 2: b\n\nc\n\n**Final answer:**\n\n4", "headings")
    assert (found.steps[1].body, found.conclusion) == ("b\n\nc", "**Final answer:**\n\n4")


def test_what_a_colon_announces_is_of_the_same_paragraph() -> None:
    text = "We add:\n\na + b\n\nThen\n\n\\[ c \\]\n\nis left.\n\nSo d."
    bodies = ["We add:\n\na + b", "Then\n\n\\[ c \\]\n\nis left.", "So d."]
    assert [body for _, body in heads(text, "paragraphs")] == bodies


def test_lines_keep_a_display_and_a_heading_with_their_sentence() -> None:
    text = "#### Part one\nWe add:\n\\[ a + b \\]\nThen stop.\n#### 4"
    bodies = ["#### Part one\nWe add:\n\\[ a + b \\]", "Then stop.", "#### 4"]
    assert [body for _, body in heads(text, "lines")] == bodies


def test_a_heading_of_a_part_is_no_final_answer() -> None:
    text = "1. **A**: a\n2. **B**: b\n\n#### Part 2: more\n\n1. **C**: c\n2. **D**: d\n\n#### 4"
    found = split_steps(text, "auto")
    assert [step.title for step in found.steps] == ["A", "B", "C", "D"]
    assert found.conclusion == "#### 4"


def test_a_list_that_is_a_part_of_the_reasoning_is_not_all_of_it() -> None:
    long = "We weigh what this means for the sum of the two, and find that nothing changes at all. " * 3
    parts = [f"{long}\n\n" for _ in range(3)]
    text = f"{parts[0]}We use:\n1. a\n2. b\n\n{parts[1]}{parts[2]}So 4."
    found = split_steps(text, "auto")
    assert (found.style, len(found.steps)) == ("paragraphs", 5)  # the last: "So 4."
    found = split_steps(text.replace("1. a", "1. **T**: a").replace("2. b", "2. **U**: b"), "auto")
    given = [f"{parts[0]}We use:", "a", "b", parts[1].strip(), parts[2].strip()]
    assert [step.body for step in found.steps] == given
    assert [step.title for step in found.steps] == ["", "T", "U", "", ""]
    assert (found.style, found.preamble, found.conclusion) == ("numbered", "", "So 4.")
    whole = split_steps(f"Short.\n1. {long}\n2. {long}\n3. {long}\n\nSo 4.", "auto")
    assert (whole.style, len(whole.steps)) == ("numbered", 3)


def test_named_headings_of_the_highest_level_with_two() -> None:
    text = "# Solution\n## Problem\np\n## Case A:\na\n### Detail\nd\n## **Case B**\nb\n## Final Answer\n4"
    split = split_steps(text, "headings")
    assert split.preamble == "# Solution\n## Problem\np"
    assert [(s.title, s.body) for s in split.steps] == [("Case A", "a\n### Detail\nd"), ("Case B", "b")]
    assert split.conclusion == "## Final Answer\n4"


def test_a_stated_answer_after_the_last_step_is_conclusion() -> None:
    split = split_steps("## Step 1: A\na\n\n## Step 2: B\nb\n\nThe final answer is: $4$", "headings")
    assert (split.steps[1].body, split.conclusion) == ("b", "The final answer is: $4$")


def test_headings_inside_code_are_none() -> None:
    text = "## Step 1: A\n```\n## Step 2: no\n```\n## Step 2: B\nb"
    assert heads(text, "headings") == [("A", "```\n## Step 2: no\n```"), ("B", "b")]


# --- lines, paragraphs, socratic --------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["lines", "paragraphs"])
@pytest.mark.parametrize(
    "block", ["```py\na\n\nb\n```", "\\begin{align}\nx\n\ny\n\\end{align}", "\\[\nx = 1\n\\]", "$$\nx\n$$"]
)
def test_blocks_never_start_a_step(style: str, block: str) -> None:
    gap = "\n" if style == "lines" else "\n\n"
    assert heads(f"One.{gap}{block}{gap}Two.", style) == [("", f"One.{gap}{block}"), ("", "Two.")]


def test_paragraphs_go_on_over_lists_and_indents() -> None:
    text = "First:\n\n- a\n- b\n\n1. c\n\n   more\n\nSecond,\nin two lines.\n\nSo the answer is 4.\n\nDone."
    split = split_steps(text, "paragraphs")
    bodies = ["First:\n\n- a\n- b\n\n1. c\n\n   more", "Second,\nin two lines."]
    assert [step.body for step in split.steps] == bodies
    assert split.conclusion == "So the answer is 4.\n\nDone."


def test_socratic() -> None:
    text = "Hello.\nHow many? ** 2*3 = 6\nmore\nWhat then? ** 6+1 = 7 ** 1\n#### 7\n"
    split = split_steps(text, "socratic")
    assert (split.preamble, split.conclusion) == ("Hello.", "#### 7")
    assert [(s.title, s.body) for s in split.steps] == [
        ("How many?", "2*3 = 6\nmore"),
        ("What then?", "6+1 = 7 ** 1"),
    ]
    assert split.steps[0].text == "1. **How many?**:\n2*3 = 6\nmore"


# --- lists and calls --------------------------------------------------------------------------------------


def test_a_json_list_is_steps() -> None:
    text = ' [" a ", {"title": "B", "body": "  b\\n"},\n {"body": "c"} ]\n'
    split = split_steps(text, "list")
    assert [(s.title, s.body) for s in split.steps] == [("", "a"), ("B", "  b"), ("", "c")]
    assert split.pieces == (" [", '" a ", ', '{"title": "B", "body": "  b\\n"},\n ', '{"body": "c"} ', "]\n")


@pytest.mark.parametrize("text", ["", "[]", "[1]", '["a", ""]', '["a"', "a", '{"a": 1}', '[{"title": "a"}]'])
def test_what_is_no_list_of_steps_is_preamble(text: str) -> None:
    split = split_steps(text, "list")
    assert (split.steps, split.preamble) == ((), text)


CALL = "<function=bash>\n<parameter=command>ls</parameter>\n</function>"


@pytest.mark.parametrize(
    ("text", "actions", "thinking"),
    [
        (f"I look.\n\n{CALL}\nThen:\n{CALL}", [CALL, CALL], ["I look.", "Then:"]),
        (f"{CALL}\r\n".replace("\n", "\r\n"), [CALL], [""]),
        ("a\n<command>\nls -F\n</command>\n", ["ls -F"], ["a"]),
        ("a\n```bash\nls\n\ncat b\n```\nb\n```\npwd\n```", ["ls\n\ncat b", "pwd"], ["a", "b"]),
        ("a\n````\n```\nx\n```\n````", ["```\nx\n```"], ["a"]),
        ("<tool_call>\n{}\n</tool_call>", ["<tool_call>\n{}\n</tool_call>"], [""]),
        (f"```\nno call\n```\n{CALL}", [CALL], ["```\nno call\n```"]),
        ("```\nnever closed", [], []),
        ("<function=a> never closed", [], []),
        ("```\n\n```", [], []),
    ],
)
def test_calls(text: str, actions: list[str], thinking: list[str]) -> None:
    split = split_steps(text, "agent")
    assert [step.text for step in split.steps] == actions
    assert [step.thinking for step in split.steps] == thinking


# --- auto -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("1. **A**: a\n2. **B**: b", "numbered"),
        ("1. a\n2. b", "numbered"),
        ("## Step 1: A\n1. **x**: y\n2. **z**: w\n## Step 2: B\nb", "numbered"),
        (
            "## Step 1: A\n1. x is the first of all of them\n2. y\n## Step 2: B\nb is long, long, long",
            "headings",
        ),
        ("## A\na\n## B\nb", "headings"),
        ("Q? ** a\nR? ** b\n#### 4", "socratic"),
        ("a line\nand another", "lines"),
        ("a paragraph\nof two lines\n\nand another", "paragraphs"),
        ('["a", "b"]', "list"),
        (f"a\n{CALL}\nb\n{CALL}", "agent"),
        ("one line", "none"),
        ("", "none"),
        ("<answer>\n1 2\n3 4\n</answer>", "none"),
    ],
)
def test_auto_says_what_it_took(text: str, style: str) -> None:
    split = split_steps(text, "auto")
    assert split.style == style
    assert (len(split.steps) >= 2) == (style != "none")
    if style != "none":
        assert split == split_steps(text, style)


# --- all of them ------------------------------------------------------------------------------------------

PIECE = st.sampled_from(
    ["1. ", "2. ", "3. ", "**", "T", ":", "\n", "\n\n", "\r\n", "\r", "   ", "```", "$$", "\\[", "\\]", "# "]
    + ["## Step 1: a\n", "## Step 2\n", "**Step 3:** b\n", "### End\n", "Q ** a\n", "#### 4\n", '"', "[", "]"]
    + [
        "\\begin{a}",
        "\\end{a}",
        "1. **A**: a\n",
        "2. **B**: b\n",
        "<function=a>",
        "</function>",
        "- x\n",
        "\f",
    ]
    + ["<command>\n", "\n</command>", '["a", ', '{"body": "b"}', "The answer is 4.", "\x85", "\u2028", " "]
)
TEXT = st.lists(PIECE, max_size=25).map("".join) | st.text(max_size=60)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=120, deadline=None)
@example(text="1. 1. \n</command>\n2. **B**: b\n")  # white space at the end of a header's line is the body's
@example(text="Step 1: a \nb\nStep 2: c \nd\n")
@given(text=TEXT)
def test_joining_the_pieces_gives_the_text(style: str, text: str) -> None:
    split = split_steps(text, style)
    assert "".join(split.pieces) == text
    assert len(split.pieces) == len(split.steps) + 2
    assert [step.index for step in split.steps] == list(range(1, len(split.steps) + 1))
    for step, piece in zip(split.steps, split.pieces[1:], strict=False):
        assert step.text.strip(), "a step has a text"
        if split.style != "list":  # whose texts are JSON
            piece = piece.replace("\r\n", "\n").replace("\r", "\n")
            piece = piece if split.style == "agent" else plain(piece)
            assert step.body in piece
            assert step.thinking in piece
    if split.style not in ("list", "agent"):
        for part, piece in ((split.preamble, split.pieces[0]), (split.conclusion, split.pieces[-1])):
            assert part == plain(piece).replace("\r\n", "\n").replace("\r", "\n").strip()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "text",
    ["# " + " " * 10**5, "## Step 1: a\n" * 20_000, "a ** " * 60_000, "<function=" * 50_000]
    + ["<function=a>" * 20_000, "<command>\n" * 20_000, "```\n" * 20_000, "[" * 50_000, "# a\n" * 20_000]
    + [
        "[" + '"a", ' * 20_000 + '"b"]',
        "\n" * 50_000,
        "\\[\n" * 20_000,
        "**Step " * 20_000,
        "a\n\n" * 20_000,
        "1. a\n2. b\n\nanother way\n" * 8000,
        "1. a\n2. b\n" * 3000 + "\n\n" + "prose " * 20_000,
    ],
    ids=lambda text: repr(text[:9]),
)
def test_long_texts_take_linear_time(style: str, text: str) -> None:
    begin = time.process_time()
    split_steps(text, style)
    assert time.process_time() - begin < 3.0


# --- real solutions ---------------------------------------------------------------------------------------

FILES = [
    ("steps/numina_amc_aime", "solution", 1181, {"numbered": 1032, "headings": 105}),
    ("steps/openthoughts_olympiads", "solution", 50, {"numbered": 47, "headings": 3}),
    ("steps/reasoning_gym_responses", "solution", 175, {"numbered": 103, "headings": 35}),
    ("steps/zeroeval_math_l5", "solution", 123, {"numbered": 75}),
    ("steps/deepseek_r1_traces", "solution", 2, {"numbered": 2}),
    ("gsm8k/train", "answer", 7473, {"lines": 7468}),
    ("gsm8k/test_socratic_300", "answer", 300, {"socratic": 300}),
]


@real_data
@pytest.mark.parametrize(("name", "field", "least", "styles"), FILES, ids=[file[0] for file in FILES])
def test_real_solutions(name: str, field: str, least: int, styles: dict[str, int]) -> None:
    """Two steps or more of so many, no two numbered steps in one, and the text comes back in every style."""
    taken: Counter[str] = Counter()
    second = re.compile(r"(?m)^\d+[.)]\s+\*\*")
    for number, row in enumerate(map(json.loads, (DATA / f"{name}.jsonl").open())):
        text = row[field] or ""
        for style in STYLES if number < 300 else ():
            assert "".join(split_steps(text, style).pieces) == text
        split = split_steps(text, "auto")
        taken[split.style] += len(split.steps) >= 2
        if split.style != "paragraphs":  # lists that are a part of the reasoning
            titled = any(step.title for step in split.steps)  # then untitled ones are paragraphs
            own = [step for step in split.steps if bool(step.title) == titled]
            assert not [step for step in own if second.search(step.body)], row.get("id")
    assert sum(taken.values()) >= least
    assert not Counter(styles) - taken
