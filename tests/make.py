"""Examples, groups, prompts and data modules that several tests need."""

import json
from collections import Counter
from types import SimpleNamespace

import torch
from conftest import tiny_tokenizer
from tokenizers import AddedToken

from datamodules.expert import ExpertDataModule, Validation
from srl.data.formats import file_rows
from srl.data.load import each_trajectory
from srl.data.row_format import RowFormat
from srl.engine import attention  # noqa: F401 - registers ours
from srl.examples.prompts import PromptFormat
from srl.model.adapters import LoraSettings, attach_lora
from srl.types import Completion, Example, Group

TEXTS = ["#1: 1+2+3?\n", "#12: 4+5+6 and more words?\n", "x\n", "#1: 1+2+3?\n", "a longer prompt = 17?\n"]


def example(text, tokenizer, **kwargs):
    defaults = {"think": False, "max_new_tokens": 12}
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Example(text, "srl", 1, ids, "t", **(defaults | kwargs))


def lora(model):
    """An adapter that does something: B is zero at first."""
    model = attach_lora(model, LoraSettings(r=4, alpha=8), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def plain_logprobs(model, prompt, ids, temperature=1.0):
    logits = model(torch.tensor([list(prompt) + list(ids)])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0].detach()


def group(prompt, lengths, rewards, objective="srl", sampled_at=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    completions = [
        Completion(
            tuple(torch.randint(5, 90, (n,), generator=generator).tolist()),
            "",
            -torch.rand(n, generator=generator),
            finished=True,
        )
        for n in lengths
    ]
    example = Example("u", objective, 1, tuple(prompt), "t")
    return Group(example, completions, torch.tensor(rewards), sampled_at=sampled_at)


def imitation(prompt, target):
    example = Example("u", "sft", 1, tuple(prompt), "t", target_ids=tuple(target))
    return Group(example, [], torch.empty(0))


GROUPS = [
    group([5, 6, 7], [4, 9, 1], [0.0, 0.5, 1.0], seed=1),
    group([8, 9, 10, 11, 12, 13], [2, 2, 7], [0.2, 0.9, 0.4], seed=2, sampled_at=-1),
    group([14] * 11, [3, 5, 6], [1.0, 0.0, 0.0], seed=3),
    imitation([5, 6, 7, 8], [20, 21, 22, 23, 24]),
]


NESTED = [  # the prompts of three steps, a second problem behind the same beginning, and a stranger
    tuple(range(10, 22)),
    (*range(10, 22), 30, 31, 32),
    (*range(10, 22), 30, 31, 32, 33, 34),
    (*range(10, 18), 50, 51, 52, 53),
    (70, 71, 72),
]  # fmt: skip


RAW = PromptFormat("raw")

CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer(template=CHATML, special=("<|im_start|>", "<|im_end|>"), added=()):
    """The tiny tokenizer, whose end token is <eos>, with a chat template and the tokens that it writes."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    tokenizer.chat_template = template
    return tokenizer


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def module(path, problems=2, tokenizer=None, **kwargs):
    kwargs = {"validation": Validation(problems=problems), "prompt": RAW, "think": False} | kwargs
    made = ExpertDataModule(str(path), **kwargs)
    made.trainer = SimpleNamespace(lightning_module=SimpleNamespace(tokenizer=tokenizer or tiny_tokenizer()))
    return made


def ready(path, problems=2, **kwargs):
    made = module(path, problems, **kwargs)
    made.setup("fit")
    return made


def validation(made):
    """Examples and trajectories of the two loaders, their batches joined."""
    return [
        [
            pair
            for batch in loader
            for pair in zip(batch.examples, batch.trajectories, strict=True)
        ]
        for loader in made.val_dataloader()
    ]  # fmt: skip


def read_trajectories(path, row=RowFormat(), notes=None):  # noqa: B008 - frozen
    """The trajectories of a file and its skips."""
    return from_rows(file_rows(str(path)), row, notes)


def from_rows(rows, row=RowFormat(), notes=None):  # noqa: B008 - frozen
    """The trajectories of (where, row) pairs and their skips."""
    skipped = []
    found = list(each_trajectory(rows, row, Counter() if notes is None else notes, skipped))
    return found, skipped


def byte_tokenizer(normalizer=None, template=None, added=()):
    """One token a byte, so that a character of several bytes is several tokens; `<eos>` ends."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    tokenizer.chat_template = template
    return tokenizer


def space_tokenizer(clean_up=False, words=("x", "=", "5", ",", "y", "end")):
    """Words with the space before them, as in SentencePiece; a text's first space is not decoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<eos>", "<unk>", *(f"\u2581{word}" for word in words)]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        clean_up_tokenization_spaces=clean_up,
    )  # fmt: skip
