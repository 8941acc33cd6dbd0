"""A tiny random model and expert file, made once a session: real tokenizer, real model, seconds to run."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import itertools
import json
import multiprocessing
import os
import shutil
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, settings
from sqlalchemy import event
from sqlalchemy.engine import Engine

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Three tests run at a time, as some wait, each on one thread, and so do the processes that they start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Time limits would fail a test for what else the machine does.
settings.register_profile("srl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("srl")
CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;=+-*/<>#?!()[]{}\\_'\"\n"


@event.listens_for(Engine, "connect")
def _written_and_not_waited_for(connection, _) -> None:
    """SQLite waits for the disk at each commit, a fifth of a short run: no test is about a loss of power."""
    connection.execute("PRAGMA synchronous=OFF")


# Begun first, so that no worker is left with one of them at the end.
LONG = (
    "test_plan", "test_mirror", "test_ranks", "test_docs", "test_cli", "test_resume", "test_signals",
    "test_faults", "test_sweep", "test_hostile", "test_compare", "test_token_budget", "test_bad_input",
)  # fmt: skip


def pytest_collection_modifyitems(items) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


def tiny_tokenizer():
    """One token a character, with `<think>` tags as ordinary tokens; no chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "<think>", "</think>", *CHARS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"</?think>|[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def tiny_model(kind: str = "llama", vocab_size: int = 96, layers: int = 2):
    """A random causal model of one of four architectures, about 60,000 parameters, seeded."""
    import transformers

    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": vocab_size, "max_position_embeddings": 512,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": False,
        "initializer_range": 0.2,
    }  # fmt: skip
    config = {
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gpt_neox": transformers.GPTNeoXConfig,
    }[kind]
    if kind == "qwen3":
        sizes["head_dim"] = 8
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config(**sizes))


@pytest.fixture(scope="session")
def server():
    """A process that has imported what a run does, whose forked children run it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # Python 3.11 does not pass it on
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = tiny_tokenizer()
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def expert_rows(count: int) -> list[dict]:
    """Sums of three numbers as two steps and a conclusion; the answer is exact text."""
    rows = []
    for i in range(count):
        a, b, c = i % 7, (i * 3) % 5 + 1, (i * 5) % 9
        steps = [f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}", f"so {a + b + c}"]
        rows.append(
            {
                "uid": f"p{i}",
                "problem": f"#{i}: {a}+{b}+{c}?",
                "preamble": "",
                "steps": [{"title": "", "body": step} for step in steps],
                "answer": "\n".join(steps),
                "answer_check": "exact",
            }
        )
    return rows


@pytest.fixture
def expert_file(tmp_path) -> Path:
    path = tmp_path / "expert.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in expert_rows(24)))
    return path


@functools.cache
def empty_mlflow() -> Path:
    """A tracking database without runs: making its tables takes seconds, copying the file does not."""
    import mlflow

    path = Path(tempfile.mkdtemp()) / "mlflow.db"
    atexit.register(shutil.rmtree, path.parent)
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@functools.cache
def spare_imports() -> None:
    """Collections look no more at the million objects of the packages imported so far."""
    gc.collect()
    gc.freeze()


def forget_store() -> None:
    """Drop MLflow's store of ./mlflow.db, which stays that of the folder where it was first opened."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    if engine := SqlAlchemyStore._engine_map.pop("sqlite:///mlflow.db", None):
        engine.dispose()


def tracking_uri(folder: Path) -> str:
    """The address of the folder's MLflow database, made if it is not there."""
    if not (folder / "mlflow.db").exists() and folder.is_dir():
        shutil.copy(empty_mlflow(), folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


def fit(model_folder: Path, expert_file: Path, folder: Path, *more: str, command: str = "fit") -> int:
    """The real command line on the tiny model, in this process; returns its exit status.

    In float32, whatever the processor has. The reward of a random model rarely differs within a group: its
    temperature is high and nothing is filtered unless a test says so. Phases are those of its config files.
    """
    from srl.cli.main import main

    files = [Path(value) for flag, value in itertools.pairwise(more) if flag == "--config"]
    own = any("phases:" in file.read_text() for file in files if file.is_file())
    arguments = [
        command,
        "--model.base", str(model_folder), "--model.lora", "{r: 4, alpha: 8}",
        "--model.validation.attempts", "2", "--model.validation.share", "false",
        "--data.path", str(expert_file), "--data.think", "false", "--data.include_last", "true",
        "--data.prompt.template", "raw", "--data.validation.problems", "4",
        "--data.limits", "{step_tokens: 8, solution_tokens: 16, step_stop: [\"\\n\"]}",
        "--curriculum.batch_groups", "3", "--rollout.num_generations", "4",
        *([] if own else ["--curriculum.phases", "[{name: srl, mix: {srl: 1.0}}]"]),
        "--dynamic_sampling.epsilon", "0", "--checkpoint.dirpath", str(folder),
        "--trainer.logger.init_args.tracking_uri", tracking_uri(folder.parent),
        "--trainer.logger.init_args.artifact_location", str(folder.parent / "artifacts"),
        "--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu",
        "--trainer.precision", "32-true", *more,
    ]  # fmt: skip
    status = main(arguments)
    spare_imports()
    return status


def letter_rows(count: int) -> list[dict]:
    """Two steps, both the letter a or both b: learnt in a few updates, so that outcomes differ in a group."""
    return [
        {
            "uid": f"l{i}",
            "problem": f"{i}:",
            "steps": ["ab"[i % 2]] * 2,
            "answer": "\n".join(["ab"[i % 2]] * 2),
            "answer_check": "exact",
        }
        for i in range(count)
    ]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


LETTER_PHASES = """[
 {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12, until: {updates: 12}},
 {name: steps, mix: {srl: 1.0}, until: {updates: 3}},
 {name: outcome, mix: {rlvr: 1.0}}
]"""


@pytest.fixture(scope="session")
def hand_off(model_folder, tmp_path_factory) -> SimpleNamespace:
    """One run through sft, srl and rlvr with MLflow: status, what it printed, its folder and its MLflow run.

    Of its 40 problems one has a single step and one a prompt over the limit. Two config files are merged.
    """
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("hand-off")
    rows = letter_rows(40)
    rows[5]["steps"] = ["a"]
    rows[6]["problem"] = "x" * 70
    data = write_rows(folder / "letters.jsonl", rows)
    (folder / "one.yaml").write_text("rollout: {num_generations: 5}\nsamples: {every_n_updates: 3}\n")
    (folder / "two.yaml").write_text("rollout_tables: {every_n_updates: 2, rollouts: 6}\n")
    arguments = [
        "--config", str(folder / "one.yaml"), "--config", str(folder / "two.yaml"),
        "--rollout.num_generations", "5", "--curriculum.phases", LETTER_PHASES,
        "--data.limits", "{step_tokens: 3, solution_tokens: 3, step_stop: [\"\\n\"], max_prompt_tokens: 64}",
        "--trainer.max_steps", "18", "--trainer.val_check_interval", "8",
        "--dynamic_sampling.max_draws", "3", "--dynamic_sampling.patience", "200",
    ]  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = fit(model_folder, data, folder / "run", *arguments)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    said = {"status": status, "out": out.getvalue(), "err": err.getvalue()}
    return SimpleNamespace(**said, folder=folder, data=data, client=client, runs=runs, arguments=arguments)


QUIET = ["--trainer.logger", "false", "--model.validation.attempts", "0"]


@pytest.fixture(scope="session")
def logging_ready() -> None:
    """Lightning's log handler keeps the stderr of its import, which must outlive the test."""
    import lightning.pytorch  # noqa: F401


@pytest.fixture
def refused(logging_ready, model_folder, expert_file, tmp_path, capsys):
    """Run the command line on arguments that it must refuse: the one line that it wrote."""

    def run(*more, status=2):
        found = fit(model_folder, expert_file, tmp_path / "run", *QUIET, *more)
        err = capsys.readouterr().err
        assert found == status, err
        (line,) = [line for line in err.splitlines() if line.startswith("srl: error: ")]
        assert "Traceback" not in err
        assert err.endswith(line + "\n"), "more lines after it"
        assert len(line) < 500, line
        return line

    return run


@pytest.fixture
def trained(logging_ready, model_folder, expert_file, tmp_path, capsys):
    """Run the command line: status, what it wrote to stderr, and to stdout."""

    def run(*more):
        status = fit(model_folder, expert_file, tmp_path / "run", *QUIET, *more)
        captured = capsys.readouterr()
        return status, captured.err, captured.out

    return run


@pytest.fixture
def inspect(logging_ready, model_folder, tmp_path, capsys):
    def run(data, *more, status=0):
        assert fit(model_folder, data, tmp_path / "run", *more, command="inspect") == status
        return capsys.readouterr()

    return run
