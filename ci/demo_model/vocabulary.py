"""The demo model's tokenizer: byte-level BPE, trained on the corpus, with a chat template."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ '<|user|>' + message['content'] | trim }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] | trim + eos_token }}"
    "{% else %}"
    "{{ raise_exception('the roles are user and assistant, not ' + message['role']) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Vocabulary:
    """Encodes documents and chats for training; saves what a model folder needs."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        """Train on texts.

        Args:
            texts: what it should be good at.
            size: tokens, the 256 bytes and the special ones counted.
        """
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[PAD, BOS, EOS, USER, ASSISTANT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        bos_id = tokenizer.token_to_id(BOS)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
        )
        self._tokenizer = tokenizer
        self.size = tokenizer.get_vocab_size()
        self.pad_id, self.bos_id, self.eos_id, self._user_id, self._assistant_id = (
            tokenizer.token_to_id(token) for token in (PAD, BOS, EOS, USER, ASSISTANT)
        )

    def document(self, text: str) -> list[int]:
        """Ids of a text between its ends."""
        return [self.bos_id, *self._plain(text), self.eos_id]

    def chat(self, question: str, answer: str) -> tuple[list[int], int]:
        """Ids of one exchange as the template writes it, and how many precede the answer."""
        asked = [self.bos_id, self._user_id, *self._plain(question), self._assistant_id]
        return [*asked, *self._plain(answer), self.eos_id], len(asked)

    def save(self, folder: Path, max_length: int) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, the chat template inside."""
        fast = PreTrainedTokenizerFast(
            tokenizer_object=self._tokenizer,
            pad_token=PAD,
            bos_token=BOS,
            eos_token=EOS,
            additional_special_tokens=[USER, ASSISTANT],
            model_max_length=max_length,
            chat_template=CHAT_TEMPLATE,
        )
        fast.save_pretrained(folder, save_jinja_files=False)

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
