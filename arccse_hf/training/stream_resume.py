"""A run on a stream goes on where its checkpoint was, without reading again what it was trained on."""

import json
import logging
from pathlib import Path

from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import TrainOutput

from ..data.streaming import PLACE, TextStream
from ..paths import write_json

logger = logging.getLogger(__name__)

STREAM_STATE = "stream_state_{process}.json"
"""The file of a checkpoint that says where a process was in its stream."""


class StreamTrainer(Trainer):
    """A `Trainer` whose checkpoints hold the state of a `TextStream`; of other rows it is the plain one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._entered_at: str | None = None
        if isinstance(self.train_dataset, TextStream):
            self.add_callback(StreamEpochCallback())

    def train(self, resume_from_checkpoint: str | None = None, **kwargs) -> TrainOutput:
        """Trains as `Trainer.train` does; of a stream, from where it was."""
        skips = not self.args.ignore_data_skip
        if isinstance(self.train_dataset, TextStream) and resume_from_checkpoint and skips:
            self.args.ignore_data_skip = self._enter_stream(self.train_dataset, resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            self.args.ignore_data_skip = not skips

    def _enter_stream(self, stream: TextStream, checkpoint: str) -> bool:
        """Returns whether the stream goes on where it was, on all processes. Otherwise, batches must be skipped."""
        path = self._stream_state(Path(checkpoint))
        state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        obstacles = gather_object([stream.obstacle(state, self.args.dataloader_num_workers)])
        obstacle = next(filter(None, obstacles), None)
        stream.enter(None if obstacle else state)
        if obstacle is None:
            self._entered_at = checkpoint
        elif self.is_world_process_zero():
            logger.warning(f"{checkpoint}: {obstacle}; what was trained on is read again, which takes time")
        return obstacle is None

    def get_batch_samples(self, *args, **kwargs) -> tuple[list, Tensor | int | None]:
        """Returns the batches of a step."""
        samples = super().get_batch_samples(*args, **kwargs)
        if self._entered_at is not None:
            # The dataloader has drawn a number when it began, which it had done long before the checkpoint.
            self._load_rng_state(self._entered_at)
            self._entered_at = None
        return samples

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Returns the loss of a batch, and notes where the stream is behind it."""
        place = inputs.pop(PLACE, None)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if place is not None:
            self.train_dataset.trained_on(place)
        return loss

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        state = self.train_dataset.state() if isinstance(self.train_dataset, TextStream) else None
        if state is not None:
            write_json(self._stream_state(Path(output_dir)), state, indent=None)

    def _stream_state(self, checkpoint: Path) -> Path:
        return checkpoint / STREAM_STATE.format(process=self.args.process_index)


class StreamEpochCallback(TrainerCallback):
    """Counts epochs as Trainer does for a stream, the whole run being one, also where no batch was skipped."""

    def on_step_end(self, args, state, control, **kwargs):
        """Sets the epoch."""
        state.epoch = state.global_step / state.max_steps
