"""A small model in text games: imitation, step rewards and play at equal tokens.

    python benchmarks/worlds.py [--output FOLDER] [--methods sft,episode,...] [--seeds 0,1] [--tokens 40000]

Makes the games with `prepare` (textworld, an optional extra): --games with the expert's play, --play more
that can be played but not imitated, and --unseen ones (100), of which none begins as one of the former. Every
method goes on from a seed's `start`, --start updates of imitation, until its tokens, generated and trained
on, reach --tokens; imitation alone ends at --sft_updates in all, if that comes first: its updates cost few
tokens and much time. Each plays the unseen games greedily, once each; `base` is what the base does with
them. Phases that hand over to play do so after --first updates, by default those of FIRST. `meta` (RLVMR)
has the prompts and limits of configs/worlds/meta.yaml, with room to think, and its start imitates the same
games' plays with thinking made by rule (`prepare --tagged`). Interrupt it when you like: what is finished is
found in MLflow and not made again; nor is what the result of --earlier holds. Writes worlds.json to the
output folder, prints a table, and the JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from fits import BASES, ROOT, Earlier, Fit, Store, dumped, options, rounded, share
from scipy.stats import binomtest

CONFIG = ROOT / "configs" / "worlds" / "textworld.yaml"
META_CONFIG = CONFIG.with_name("meta.yaml")
SIZES = {
    "one_room": "textworld:rooms=1,objects=3,length=2",
    "two_rooms": "textworld:rooms=2,objects=4,length=3",
    "three_rooms": "textworld:rooms=3,objects=5,length=4",  # random play won none of 100: world_sizes.py
    "science": "scienceworld:task=find-non-living-thing",
}
NEEDS = {  # settings of a size that are not the config's; a play of ScienceWorld is a Java process
    "science": {"data.limits.max_prompt_tokens": "1500", "data.worlds.max_text": "8000",
                "data.validation.batch_size": "12", "data.worlds.step_seconds": "30"},
}  # fmt: skip
UNSEEN = 100
FIRST_UNSEEN = 100_000  # seed of the first unseen game
SFT = "{name: sft, mix: {sft_step: 1.0}, batch_groups: 32, lr: 1.0e-3}"
SRL = "{name: srl, mix: {srl: 1.0}, batch_groups: 8}"
SLOW = f"{SRL[:-1]}, lr: 1.0e-4}}"
MIXED = "{name: srl, mix: {srl: 0.25, sft_step: 0.75}, batch_groups: 32}"  # of what is drawn
OWN = "{name: own, mix: {srl_own: 1.0}, batch_groups: 8}"
PROGRESS = "{name: progress, mix: {progress: 1.0}, batch_groups: 4}"
EPISODE = "{name: episode, mix: {episode: 1.0}, batch_groups: 4}"
META = "{name: meta, mix: {meta: 1.0}, batch_groups: 4}"
METHODS = {  # title, phases; of two the first has the updates of FIRST
    "start": ("the start", []),
    "sft": ("SFT on the expert's actions", [SFT]),
    "srl": ("SRL", [SRL]),
    "srl_apart": ("SRL, drawn by step", [SRL]),
    "srl_apart_copying": ("SRL, drawn by step, copying 1", [SRL]),
    "srl_floor": ("SRL, floor", [SRL]),
    "srl_copying": ("SRL, copying 1", [SRL]),
    "srl_exact": ("SRL, exact 0.5", [SRL]),
    "srl_slow": ("SRL, a third of the rate", [SLOW]),
    "srl_warm": ("SRL, temperature 1.3", [SRL]),
    "srl_wide": ("SRL, 16 rollouts", [SRL]),
    "srl_adaptive": ("SRL, adaptive draws", [SRL]),
    "srl_mixed": ("SRL with imitation", [MIXED]),
    "own": ("SRL on own states", [OWN]),
    "own_apart": ("SRL on own states, drawn by step", [OWN]),
    "progress": ("progress", [PROGRESS]),
    "episode": ("RLVR (episodes)", [EPISODE]),
    "sft_episode": ("SFT, then RLVR", [SFT, EPISODE]),
    "srl_episode": ("SRL, then RLVR", [SRL, EPISODE]),
    "own_episode": ("SRL on own states, then RLVR", [OWN, EPISODE]),
    "start_meta": ("the start, tagged", []),
    "meta": ("RLVMR", [META]),
}
SETTINGS = {  # of a method, beside the config's
    "srl_floor": {"reward.floor": "true"},
    "srl_copying": {"reward.copying": "{penalty: 1.0}"},
    "srl_exact": {"reward.exact": "{bonus: 0.5}"},
    "srl_apart": {"data.draw": "step"},  # of as many games; the config draws all steps of a game together
    "srl_apart_copying": {"data.draw": "step", "reward.copying": "{penalty: 1.0}"},
    "srl_warm": {"rollout.temperature": "1.3"},
    "srl_wide": {"rollout.num_generations": "16"},
    "srl_adaptive": {"curriculum.adaptive": "{}"},
    "own_apart": {"data.draw": "step"},
}
RIVALS = ("start", "sft", "srl", "srl_apart", "episode")  # with whose games the others' are compared
FIRST = {"sft": 10, "srl": 16, "own": 12}  # updates before the hand-off, by the phase's name
MEASURED = {
    "success": "val/episode/success",
    "score": "val/episode/score",
    "turns": "val/episode/turns",
    "invalid": "val/episode/invalid",
    "repeated": "val/episode/repeated",
    "format": "val/episode/format",
    "cut": "val/episode/cut",
    "lost": "val/episode/lost",
    "exact": "val/steps/exact",
    "step_reward": "val/steps/reward",
    "copies": "val/steps/verbatim_copy",
}
BY_UPDATE = (
    "train/reward",
    "train/kept",
    "train/exact",
    "train/copied",
    "rollouts/episodes/won",
    "rollouts/episodes/invalid",
    "train/nll",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/worlds"))
    parser.add_argument("--base", choices=BASES, default="smollm2_135m")
    parser.add_argument("--size", choices=SIZES, default="two_rooms")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument("--tokens", type=int, default=40_000, help="generated and trained on, of each run")
    parser.add_argument("--games", type=int, default=300, help="recorded ones to train on")
    parser.add_argument("--play", type=int, default=0, help="games to play that were not recorded")
    parser.add_argument("--unseen", type=int, help=f"games that a validation plays; else {UNSEEN}")
    parser.add_argument("--start", type=int, default=4, help="updates of imitation before every method")
    parser.add_argument("--sft_updates", type=int, default=10_000, help="of imitation alone, in all")
    parser.add_argument("--first", type=int, help="updates of a first phase before it hands over to play")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate of all that is no imitation")
    parser.add_argument("--max_turns", type=int, default=6)
    parser.add_argument("--earlier", type=Earlier, help="a worlds.json of these games made elsewhere")
    chosen = parser.parse_args()
    if chosen.start < 1:
        parser.error("--start must be at least 1: every method goes on from it")
    if chosen.first is not None and chosen.first < 1:
        parser.error("--first must be at least 1")
    if chosen.unseen is not None and chosen.unseen < 1:
        parser.error("--unseen must be at least 1")
    made_by = (
        "base",
        "size",
        "games",
        "play",
        "unseen",
        "start",
        "first",
        "sft_updates",
        "rate",
        "max_turns",
        "tokens",
    )
    name = "-".join(f"{key}={value}" for key in made_by if (value := getattr(chosen, key)) is not None)
    store = Store(chosen.output / name, "worlds")
    data = games(store.folder, SIZES[chosen.size], chosen.games, chosen.play, chosen.unseen or UNSEEN)
    for seed in chosen.seeds:
        left = [one for one in chosen.methods if chosen.earlier is None or (one, seed) not in chosen.earlier]
        for method in dict.fromkeys(one for it in left for one in (start_of(it), it)):
            if method == "start_meta":
                tag(store.folder, SIZES[chosen.size], chosen.games, data[0])
            fit = fit_of(store.folder, data, method, seed, chosen)
            for made, seconds in store.make([fit], jobs=1):
                print(f"{made.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
            result = summary(store, chosen)
            (store.folder / "worlds.json").write_text(dumped(result))
            print(report(result), by_game(result), sep="\n", file=sys.stderr, flush=True)
    print(json.dumps(summary(store, chosen)))


def start_of(method: str) -> str:
    return "start_meta" if method.endswith("meta") else "start"


def games(folder: Path, size: str, recorded: int, played: int, unseen_count: int) -> tuple[Path, Path]:
    """The games, to train on and unseen, made once; unseen ones that begin as others go. Of those to train on
    the first have the expert's play, the rest no steps.
    """
    paths = folder / "expert.jsonl", folder / "unseen.jsonl"
    for path, first, count in zip(paths, (0, FIRST_UNSEEN), (recorded + played, unseen_count), strict=True):
        record(path, size, first, count)
    rows = read(paths[0])
    write(paths[0], [*rows[:recorded], *({**row, "steps": []} for row in rows[recorded:])])
    known = {" ".join(row["problem"].split()) for row in rows}
    unseen = read(paths[1])
    kept = [row for row in unseen if " ".join(row["problem"].split()) not in known]
    if len(kept) < len(unseen):
        write(paths[1], kept)
        print(f"{len(unseen) - len(kept)} unseen games begin as trained ones: left out", file=sys.stderr)
    return paths


def tag(folder: Path, size: str, recorded: int, games: Path) -> None:
    """The plays to train on with thinking, of as many games as the others, so of the same, and those games
    that are played only.
    """
    path = folder / "tagged.jsonl"
    if not path.exists():
        record(path, size, 0, recorded, "--tagged")
        write(path, [*read(path), *(row for row in read(games) if not row["steps"])])


def record(path: Path, size: str, first: int, count: int, *more: str) -> None:
    if path.exists():
        return
    made = path.with_suffix(".new")
    command = [sys.executable, "-m", "srl", "prepare", size, "--games", str(count),
               "--first_seed", str(first), "--workers", "1", "--output", str(made), *more]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    made.rename(path)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fit_of(folder: Path, data: tuple[Path, Path], method: str, seed: int, chosen: argparse.Namespace) -> Fit:
    """`start` ends after its updates; the others go on from its checkpoint."""
    start = start_of(method)
    phases = [SFT.replace("sft,", "start,", 1)]
    if method != start:
        phases[0] = f"{phases[0][:-1]}, until: {{updates: {chosen.start}}}}}"
    for phase in METHODS[method][1]:
        hands_over = phase != METHODS[method][1][-1]
        name = phase.partition("name: ")[2].partition(",")[0]
        rate = "" if "lr:" in phase else f", lr: {chosen.rate}"
        until = f", until: {{updates: {chosen.first or FIRST[name]}}}" if hands_over else ""
        phases.append(phase[:-1] + rate + until + "}")
    config, path = (META_CONFIG, data[0].with_name("tagged.jsonl")) if start != "start" else (CONFIG, data[0])
    settings = {
        "config": str(config), "data.path": str(path), "data.val_path": str(data[1]),
        "data.row.min_steps": "0", "curriculum.phases": f"[{', '.join(phases)}]",
        **BASES[chosen.base], **NEEDS.get(chosen.size, {}), **SETTINGS.get(method, {}),
        "seed_everything": str(seed), "budget.tokens": str(chosen.tokens),
        "data.limits.max_turns": str(chosen.max_turns), "model.validation.attempts": "0",
        "trainer.max_steps": "100000", "trainer.val_check_interval": "100000",
    }  # fmt: skip
    if method == start:
        settings["trainer.max_steps"] = str(chosen.start)
    else:
        settings["ckpt_path"] = str(folder / "checkpoints" / f"{start}-{seed}" / "last.ckpt")
    if method == "sft":
        settings |= {"trainer.max_steps": str(chosen.sft_updates), "trainer.val_check_interval": "10"}
    return Fit(f"{method}-{seed}", options(settings), {"method": method, "seed": str(seed)})


# -- what there is ------------------------------------------------------------------------------------------


def summary(store: Store, chosen: argparse.Namespace) -> dict[str, Any]:
    """The base, and the newest validation of every finished run, its costs, and its curves by update."""
    runs: list[dict[str, Any]] = []
    base: dict[str, float] = {}
    for run in store.client.search_runs([store.identity], "attributes.status = 'FINISHED'"):
        tags, metrics = run.data.tags, run.data.metrics
        if "method" not in tags:
            continue
        curve = {name: rounded(series(store, run.info.run_id, name)) for name in BY_UPDATE}
        if tags["method"] == "start":
            base = {key: series(store, run.info.run_id, name).get(0, 0.0) for key, name in MEASURED.items()}
        runs.append({
            "method": tags["method"],
            "seed": int(tags["seed"]),
            "commit": tags.get("git_commit", "unknown"),
            "updates": max(series(store, run.info.run_id, "cost/tokens_trained"), default=0),
            "tokens": metrics["cost/tokens_generated"] + metrics["cost/tokens_trained"],
            "cpu_seconds": round(metrics["cost/cpu_seconds"]),
            **{key: round(metrics[name], 4) for key, name in MEASURED.items() if name in metrics},
            "won": won(store, run.info.run_id),
            "train": {name: points for name, points in curve.items() if points},
            "validated": rounded(series(store, run.info.run_id, MEASURED["success"])),
        })  # fmt: skip
    order = list(METHODS)
    runs.sort(key=lambda one: (order.index(one["method"]), one["seed"]))
    unseen = len(read(store.folder / "unseen.jsonl"))
    said = re.sub(r"--(output|earlier)[ =]\S+ ?", "", " ".join(sys.argv[1:])).strip()  # a reader has neither
    result = {
        "command": "python benchmarks/worlds.py " + said, "games": SIZES[chosen.size],
        "base_model": chosen.base, "max_turns": chosen.max_turns, "recorded": chosen.games,
        "played": chosen.play, "start": chosen.start, "rate": chosen.rate, "unseen": unseen, "base": base,
        "runs": runs,
    }  # fmt: skip
    return chosen.earlier.beside(result, list(METHODS)) if chosen.earlier else result


def won(store: Store, run: str) -> str:
    """A sign for each unseen game, in their order: 1 where it was won in the newest validation."""
    tables = store.client.list_artifacts(run, "validation")
    newest = max(one.path for one in tables if "/episodes_" in one.path)
    table = json.loads(Path(store.client.download_artifacts(run, newest)).read_text(encoding="utf-8"))
    uid, end = table["columns"].index("uid"), table["columns"].index("end")
    wins = {row[uid] for row in table["data"] if row[end] == "won"}
    return "".join("01"[row["uid"] in wins] for row in read(store.folder / "unseen.jsonl"))


def series(store: Store, run: str, name: str) -> dict[int, float]:
    return {one.step: one.value for one in store.client.get_metric_history(run, name)}


def report(result: dict[str, Any]) -> str:
    """Markdown: a line for a method, with means over its seeds. Success stands with its standard error over
    the unseen games, which are the same for all seeds, and by seed.
    """
    columns = ["turns", "invalid", "repeated", "format", "exact", "step_reward"]
    if any("copies" in run for run in result["runs"]):
        columns.append("copies")
    names = ("method", "seeds", "updates", "tokens", "CPU s", "success", "by seed", *columns)
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rows = [("base", [result["base"]])] if result["base"] else []
    for method, title in ((one, METHODS[one][0]) for one in METHODS):
        rows.append((title, [run for run in result["runs"] if run["method"] == method]))
    for title, runs in rows:
        if not runs:
            continue
        costs = ("updates", "tokens", "cpu_seconds")
        spent = [f"{mean(runs, key):,.0f}" if key in runs[0] else "" for key in costs]
        cells = [
            str(len(runs)) if any(spent) else "", *spent, share(mean(runs, "success"), result["unseen"]),
            " ".join(f"{run['success']:.2f}" for run in runs) if len(runs) > 1 else "",
            *("" if math.isnan(value := mean(runs, key)) else f"{value:.2f}" for key in columns),
        ]  # fmt: skip
        lines.append(f"| {' | '.join([title, *cells])} |")
    return "\n".join(lines) + "\n"


def by_game(result: dict[str, Any]) -> str:
    """Markdown: how many games each method wins that a rival of the same seed loses, and the other way round,
    by seed; p is that of a sign test of all seeds' games, which takes the runs as given: it does not say what
    another seed would bring.
    """
    won = {(one["method"], one["seed"]): one["won"] for one in result["runs"]}
    seeds = sorted({seed for _, seed in won})
    rivals = [one for one in RIVALS if any(method == one for method, _ in won)]
    lines = [f"| games won alone : by the rival alone | {' | '.join(METHODS[one][0] for one in rivals)} |"]
    lines.append("|---" * (1 + len(rivals)) + "|")
    for method in METHODS:
        pairs = {rival: [(won[method, seed], won[rival, seed]) for seed in seeds
                         if method != rival and {(method, seed), (rival, seed)} <= won.keys()]
                 for rival in rivals}  # fmt: skip
        if not method.startswith("start") and any(pairs.values()):
            cells = [against(found) if found else "" for found in pairs.values()]
            lines.append(f"| {METHODS[method][0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def against(pairs: list[tuple[str, str]]) -> str:
    """Games that the one wins alone and the other alone, of each pair of runs; a sign test of their sums.

    >>> against([("1110", "0001"), ("11", "00")])
    '3:1 2:0 (p = 0.22)'
    """
    alone = [(games.count(("1", "0")), games.count(("0", "1")))
             for one, other in pairs for games in [list(zip(one, other, strict=True))]]  # fmt: skip
    more, less = map(sum, zip(*alone, strict=True))
    chance = binomtest(more, more + less).pvalue if more + less else 1.0
    shown = "< 0.001" if chance < 1e-3 else f"= {chance:.2g}"
    return f"{' '.join(f'{one}:{other}' for one, other in alone)} (p {shown})"


def mean(runs: list[dict[str, Any]], key: str) -> float:
    return fmean(run.get(key, math.nan) for run in runs)


if __name__ == "__main__":
    main()
