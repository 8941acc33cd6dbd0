"""What a chat template writes behind a response is an end of it, whatever the tokenizer's end token is."""

import logging

import pytest
from conftest import tiny_model, tiny_tokenizer
from make import CHATML, chat_tokenizer

from srl.model.loading import end_token_ids
from srl.model.turns import turn_end_id

LLAMA = (
    "{{ '<|begin|>' }}{% for turn in messages %}<|head|>{{ turn.role }}<|/head|>\n\n{{ turn.content | trim }}"
    "<|eot|>{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
PHI = (
    "{% for turn in messages %}<|{{ turn.role }}|>\n{{ turn.content }} <|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
CUT = (  # the last turn is left open
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}"
    "{% if turn.role == 'assistant' and not loop.last %}<|end|>{% endif %}{% endfor %}"
)
ROLES = (  # a turn ends where the next one begins, and at nothing else
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
THINKS = CHATML.replace(
    "{{ turn.content }}",
    "{% if turn.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ turn.content }}",
)
EOS = "{% for turn in messages %}{{ turn.content }}{{ eos_token }}{% endfor %}"
PAIRS = (
    "{% for turn in messages %}{% if turn.role == 'user' %}[INST] {{ turn.content }} [/INST]"
    "{% else %} {{ turn.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TEXT = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n### End\n{% endfor %}"
NEITHER = (
    "{% for turn in messages %}{% if turn.role != 'user' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
)
SPECIAL = ("<|user|>", "<|assistant|>", "<|end|>")


@pytest.mark.parametrize(
    ("template", "special", "added", "end"),
    [
        (CHATML, ("<|im_start|>", "<|im_end|>"), (), "<|im_end|>"),
        (CHATML, (), ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),  # whatever its flag
        (CHATML, (), (), None),  # no token at all: the template came without its tokens
        (LLAMA, ("<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"), (), "<|eot|>"),
        (PHI, SPECIAL, (), "<|end|>"),  # and not the <eos> that closes the conversation
        (CUT, SPECIAL, (), "<|end|>"),
        (ROLES, SPECIAL, (), None),
        (THINKS, ("<|im_start|>", "<|im_end|>"), (), "<|im_end|>"),
        (EOS, (), (), "<eos>"),
        (PAIRS, (), (), "<eos>"),
        (TEXT, (), (), None),
        (TEXT, (), ("\n", "###"), "###"),  # white space is layout, token or not
        (NEITHER, (), (), None),
        (None, ("<|im_end|>",), (), None),
    ],
)
def test_the_end_of_a_turn_is_what_the_template_writes_behind_a_response(template, special, added, end):
    tokenizer = chat_tokenizer(template, special, added)
    assert turn_end_id(tokenizer) == (None if end is None else tokenizer.convert_tokens_to_ids(end))


@pytest.fixture
def said(caplog, monkeypatch):
    logger = logging.getLogger("srl.model.loading")  # the command line stops propagation: listen here
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_it_ends_a_response_besides_the_tokenizers_end_token_and_that_is_said(said):
    tokenizer, model = chat_tokenizer(), tiny_model()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_token_ids(tokenizer, model) == (1, end)
    assert said() == ["A response ends with <eos> or <|im_end|>; the tokenizer's end token is <eos>"]


@pytest.mark.parametrize("template", [None, EOS, ROLES])
def test_where_the_tokenizers_end_token_is_the_only_one_nothing_is_said(template, said):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    assert end_token_ids(tokenizer, tiny_model()) == (1,)
    assert said() == []


def test_an_end_of_a_turn_that_is_no_token_is_said(said):
    tokenizer = chat_tokenizer(special=())
    assert end_token_ids(tokenizer, tiny_model()) == (1,)
    assert said() == [
        "The chat template ends a turn with '<|im_end|>', which is no special or added token: a response "
        "ends with <eos> alone"
    ]
