"""Token ids of pairs, drawn while training goes on."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase, TrainingArguments

from .collator import special_ids
from .dataloaders import loader_options, prepare_share
from .distinct_batches import DistinctDocumentBatchSampler
from .pairs import CropUnit, PairRow, draw_texts
from .tokenization import check_length, token_ids

SIDES = ("anchor", "positive")
TOKEN_CROP_SHARES = (0.05, 0.5)
"""The shortest and the longest crop, as a share of its window's tokens (Contriever's)."""


class PairDataset(Dataset):
    """Token ids of pairs, `anchor` and `positive`, drawn when they are asked for.

    A crop follows from the seed, the epoch and the row's number alone: it is drawn anew each epoch, and is the same for
    any number of processes and workers, and after a resume.

    Args:
        rows: As `make_pairs` gives them.
        tokenizer: Left as it is.
        max_seq_length: In tokens, special tokens included.
        crop_unit: Whether a crop is one or two `sentences`, or a run of `tokens` of the window.
        crop_deletion: Probability that a crop loses a token.
        seed: Of the crops and of the order of rows.

    Raises:
        UserError: `max_seq_length` leaves no room for a word.
    """

    def __init__(
        self,
        rows: Sequence[PairRow],
        tokenizer: PreTrainedTokenizerBase,
        max_seq_length: int,
        *,
        crop_unit: CropUnit = "sentences",
        crop_deletion: float = 0.1,
        seed: int = 42,
    ):
        check_length(tokenizer, max_seq_length)
        self.rows = rows
        self.documents = np.array([row.document for row in rows], dtype=np.int64)
        self.tokenizer = copy.deepcopy(tokenizer)
        self.max_seq_length = max_seq_length
        self.crop_unit = crop_unit
        self.crop_deletion = crop_deletion
        self.seed = seed
        self._special = special_ids(tokenizer)
        # Shared memory: worker processes hold copies of the dataset and must see the epoch change too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Starts an epoch: the same rows give new crops, in another order."""
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that crops and order belong to."""
        return int(self._epoch)

    @property
    def fingerprint(self) -> str:
        """Of the rows and of how crops are drawn: a resumed run must have the same."""
        settings = (self.max_seq_length, self.crop_unit, self.crop_deletion, self.seed)
        return hashlib.sha256(repr((settings, self.rows)).encode()).hexdigest()

    def head(self, count: int) -> datasets.Dataset:
        """The first `count` rows as they are drawn in this epoch."""
        return datasets.Dataset.from_list(self.__getitems__(range(min(count, len(self)))))

    def texts(self, count: int) -> datasets.Dataset:
        """Returns the texts of up to `count` rows, uncut, as they are drawn in this epoch; see `draw_texts`.

        Rows that become crops of tokens are left out, since they have their texts only as tokens.
        """
        places = [index for index, row in enumerate(self.rows) if row.kind != "crops" or self.crop_unit != "tokens"]
        chosen = [places[place] for place in np.linspace(0, len(places) - 1, min(count, len(places)), dtype=int)]
        pairs = [self.draw_texts(index) for index in chosen]
        return datasets.Dataset.from_dict({side: [pair[view] for pair in pairs] for view, side in enumerate(SIDES)})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, list[int]]]:
        rngs = [np.random.default_rng((self.seed, self.epoch, index)) for index in indices]
        pairs = [self.draw_texts(index, rng) for index, rng in zip(indices, rngs, strict=True)]
        texts = [text for pair in pairs for text in pair]
        ids = iter(token_ids(self.tokenizer, texts))
        return [
            {side: self._finish(next(ids), self.rows[index].kind, rng) for side in SIDES}
            for index, rng in zip(indices, rngs, strict=True)
        ]

    def draw_texts(self, index: int, rng: np.random.Generator | None = None) -> tuple[str, str]:
        """The two texts of a row, before what happens to their tokens: for crops of tokens the whole window, twice."""
        rng = rng or np.random.default_rng((self.seed, self.epoch, index))
        return draw_texts(self.rows[index], rng, self.crop_unit)

    def _finish(self, token_ids: list[int], kind: str, rng: np.random.Generator) -> list[int]:
        content = [position for position, token in enumerate(token_ids) if token not in self._special]
        if not content:
            return token_ids
        before, after = token_ids[: content[0]], token_ids[content[-1] + 1 :]
        tokens = token_ids[content[0] : content[-1] + 1]
        if kind == "crops":
            if self.crop_unit == "tokens":
                length = max(1, round(rng.uniform(*TOKEN_CROP_SHARES) * len(tokens)))
                start = rng.integers(len(tokens) - length + 1)
                tokens = tokens[start : start + length]
            stays = rng.random(len(tokens)) >= self.crop_deletion
            tokens = [token for token, stay in zip(tokens, stays, strict=True) if stay] or tokens
        return before + tokens[: self.max_seq_length - len(before) - len(after)] + after

    def batch_sampler(self, batch_size: int, args: TrainingArguments) -> DistinctDocumentBatchSampler:
        """Returns what divides the rows of an epoch into batches, of which this process has its part.

        Raises:
            UserError: There are too few documents for a batch.
        """
        return DistinctDocumentBatchSampler(
            self.documents,
            batch_size,
            num_processes=args.world_size,
            process_index=args.process_index,
            drop_last=args.dataloader_drop_last,
            seed=self.seed,
            epoch=lambda: self.epoch,
        )

    def dataloader(
        self, batch_size: int, collate: Callable, args: TrainingArguments, device: torch.device
    ) -> DataLoader:
        """Returns what `Trainer.get_train_dataloader` wants: this process's part of each batch."""
        sampler = self.batch_sampler(batch_size, args)
        loader = DataLoader(self, batch_sampler=sampler, collate_fn=collate, **loader_options(args))
        return prepare_share(loader, args, device)
