"""Draws docs/images/method.png: one step, its rollouts, what each earns, and where the hand-off leads.

python docs/make_method_picture.py

The rewards and advantages in it are computed by the project's own functions.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from cydifflib import SequenceMatcher
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from srl.rewards.similarity import FORMAT_PENALTY, similarity  # noqa: E402
from srl.update.grpo import advantages  # noqa: E402

PROBLEM = "Mia has 3 boxes of 12 pencils.\nShe gives 7 pencils away.\nHow many are left?"
BEFORE = "1.  3 boxes hold 3 * 12 = 36 pencils."
EXPERT = "After giving 7 away, 36 - 7 = 29 are left."
ROLLOUTS = (  # thinking, action; the last one breaks the format
    ("36 in all, 7 go, so subtract", "She gives 7 away, so 36 - 7 = 29 are left."),
    ("how many does she keep?", "She keeps 36 - 7 = 29 pencils."),
    ("boxes again ...", "3 boxes hold 3 * 12 = 36 pencils."),
    ("", "The answer is 29."),
)
INK, SOFT, GREY, HIT, LINE = "#1f2933", "#f4f6f8", "#8a97a5", "#bfe3c8", "#c5ced6"
MONO = "DejaVu Sans Mono"


def box(ax: Any, x: float, y: float, width: float, height: float, title: str, colour: str = SOFT) -> None:
    ax.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.6,rounding_size=1.2", fc=colour, ec=LINE)
    )
    ax.text(x + 0.6, y + height - 1.2, title, fontsize=10, weight="bold", color=INK, va="top")


def arrow(ax: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4})


def marked(ax: Any, x: float, y: float, text: str, target: str | None, size: float = 8.2) -> None:
    """One line of fixed width; the blocks that it has in common with `target` lie on green."""
    advance = 0.80 * size / 8.2
    if target is not None:
        for block in SequenceMatcher(None, text, target, autojunk=False).get_matching_blocks():
            if block.size:
                ax.add_patch(
                    plt.Rectangle(
                        (x + block.a * advance, y - 1.2), block.size * advance, 2.4, fc=HIT, ec="none"
                    )
                )
    for place, sign in enumerate(text):
        ax.text(x + place * advance, y, sign, fontsize=size, family=MONO, color=INK, va="center")


def main() -> None:
    fig, ax = plt.subplots(figsize=(12.6, 5.6), dpi=110)
    ax.set_xlim(0, 126)
    ax.set_ylim(0, 56)
    ax.axis("off")
    box(ax, 1.5, 8, 27, 45, "The prompt of step 2")
    ax.text(2.5, 47.5, PROBLEM, fontsize=9, color=INK, va="top", linespacing=1.5)
    ax.text(2.5, 35.5, "the expert's steps so far", fontsize=8.5, color=GREY, va="top")
    ax.text(2.5, 32.2, textwrap.fill(BEFORE, 30), fontsize=9, color=INK, va="top")
    ax.text(2.5, 25.5, "write the next one", fontsize=8.5, color=GREY, va="top")
    ax.text(2.5, 19.0, "the expert's step 2\n(only the reward sees it)", fontsize=8.5, color=GREY, va="top")
    ax.text(2.5, 13.4, textwrap.fill(EXPERT, 30), fontsize=9, color=INK, va="top")
    arrow(ax, (30, 31), (34, 31))
    box(ax, 35, 8, 55, 45, "G rollouts: private thinking, then one action")
    rewards = [similarity(action, EXPERT) if thought else FORMAT_PENALTY for thought, action in ROLLOUTS]
    gains = advantages(torch.tensor(rewards), "std").tolist()
    ax.text(77.4, 48.6, "reward", fontsize=8.5, color=GREY, va="top", ha="center")
    ax.text(85.2, 48.6, "advantage", fontsize=8.5, color=GREY, va="top", ha="center")
    for row, ((thought, action), reward, gain) in enumerate(zip(ROLLOUTS, rewards, gains, strict=True)):
        y = 44 - 9.2 * row
        said = f"<think>{thought}</think>" if thought else "(no thinking: outside the format)"
        ax.text(36, y, said, fontsize=8.2, family=MONO, color=GREY, va="center")
        marked(ax, 36, y - 3.2, action, EXPERT if thought else None)
        ax.text(77.4, y - 3.2, f"{reward:.2f}", fontsize=10, color=INK, va="center", ha="center")
        ax.text(
            85.2,
            y - 3.2,
            f"{gain:+.2f}",
            fontsize=10,
            weight="bold",
            va="center",
            ha="center",
            color="#1b7f3b" if gain > 0 else "#b3261e",
        )
    ax.text(
        36,
        3.4,
        "reward = 2M / T: twice the characters in matching blocks (green) over all characters; "
        "-1 outside the format",
        fontsize=8.8,
        color=INK,
        va="center",
    )
    arrow(ax, (91.5, 31), (95.5, 31))
    box(ax, 96.5, 33, 28, 20, "SRL update", "#e8f1fb")
    ax.text(
        97.5,
        47,
        "GRPO on the groups whose\nrewards differ; one LoRA\nadapter, one optimizer",
        fontsize=9,
        color=INK,
        va="top",
        linespacing=1.5,
    )
    arrow(ax, (110.5, 31.6), (110.5, 27.4))
    ax.text(112, 29.6, "hand-off, mid-run", fontsize=8.5, color=GREY, va="center")
    box(ax, 96.5, 8, 28, 18, "Outcome rewards", "#fdf3e0")
    ax.text(
        97.5,
        20,
        "whole solutions, 1 if the final\nanswer is right, else 0; the\nsame adapter goes on",
        fontsize=9,
        color=INK,
        va="top",
        linespacing=1.5,
    )
    fig.savefig(HERE / "images" / "method.png", bbox_inches="tight", pad_inches=0.08)
    print(f"Written: {HERE / 'images' / 'method.png'}; rewards {[round(reward, 3) for reward in rewards]}")


if __name__ == "__main__":
    main()
